"""docs/scaling.md says what docs/results/scale.json holds, and the simulation behind it obeys what is known without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> Iterator[ModuleType]:
    """The benchmark's module."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import scale

        yield scale
    for name in {"scale", "mapping", "performance_page"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def site(scale: ModuleType) -> object:
    """A cluster where nothing but computing takes time."""
    return scale.Site(1e18, 1e5, 290, storage=1e18, latency=0, written=1e18, finished=1e18, tasks=1e12)


# Those that take nothing from docs/performance.md, which other benchmarks write.
@pytest.mark.parametrize("name", ["summary", "size", "cluster", "kills", "disk"])
def test_the_page_says_what_was_measured(scale: ModuleType, name: str) -> None:
    parts = scale.sections(json.loads(scale.RESULTS.read_text(encoding="utf-8")))[name]
    page = scale.PAGE.read_text(encoding="utf-8")
    found = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0].strip()
    assert found == "\n\n".join(parts), "write it again: python benchmarks/scale.py --measure '' --write-docs"


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_workers_that_wait_for_nothing_add_up(scale: ModuleType, site: object, workers: int) -> None:
    rows = 256 * 4 * workers  # of whole tiles, four for each
    assert scale.simulate(site, workers, rows, 1000) == pytest.approx(workers * 1e5, rel=1e-6)


@pytest.mark.parametrize(
    ("part", "limit"),
    [
        ({"storage": 290 * 5e5}, 5e5),
        ({"written": 5e5}, 5e5),
        ({"finished": 5e5}, 1 / (1 / 5e5 + 1 / 6.4e6)),  # workers wait for the last copies
        ({"tasks": 2}, 2 * 256_000),
    ],
)
def test_the_slowest_part_bounds_many_workers(
    scale: ModuleType, site: object, part: dict[str, float], limit: float
) -> None:
    found = scale.simulate(replace(site, **part), 64, 256 * 64 * 4, 1000)  # type: ignore[type-var]
    assert found <= limit * (1 + 1e-6)
    # Beginning and end, where not all parts are busy, are one tile of many.
    assert found == pytest.approx(limit, rel=0.1)


def test_one_small_scene_employs_no_more_workers_than_it_has_tiles(scale: ModuleType, site: object) -> None:
    assert scale.tile_of(site, 4096, 1000, 1000) == (64, 64)
    few, many = (scale.simulate(site, workers, 1000, 1000) for workers in (256, 4096))
    assert many == pytest.approx(few)


def test_bytes_of_lines_repeat(scale: ModuleType, tmp_path: Path) -> None:
    from spectralmamba import open_scene

    scene = open_scene(scale.write_scene(tmp_path / "scene", 130, 40, 12))
    assert scene.shape == (12, 130, 40)
    assert (scene.values[:, 128:] == scene.values[:, :2]).all()
