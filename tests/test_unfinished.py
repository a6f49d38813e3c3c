"""Maps that were stopped on their way, by Ctrl-C, by a kill, by their input, and go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from interrupted import after, contents, stop
from spectralmamba import Classifier, map_scene, open_scene
from spectralmamba.errors import OutputError, SceneError
from spectralmamba.scenes.writing import write_scene
from spectralmamba.settings import Settings
from spectralmamba.splits import Split
from spectralmamba.unfinished import UnfinishedMap

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.fixture
def scene(small_scene: xr.DataArray, tmp_path: Path) -> xr.DataArray:
    """A scene of 24 × 12 pixels in a file."""
    large = small_scene.isel(y=np.arange(24) % 12).drop_vars(["x", "y", "spatial_ref"])
    write_scene(large, tmp_path / "scene.tif")
    return open_scene(tmp_path / "scene.tif")


@pytest.fixture
def unbroken(classifier: Classifier, scene: xr.DataArray, tmp_path: Path) -> dict[str, bytes]:
    """The files of a map that nobody stopped."""
    (tmp_path / "unbroken").mkdir()
    map_scene(classifier, scene, tmp_path / "unbroken" / "map.tif")
    return contents(tmp_path / "unbroken")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for maps."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("tiles", [1, 2, 8, 9])
def test_a_stopped_map_goes_on_to_the_same_bytes(
    classifier: Classifier, scene: xr.DataArray, out: Path, unbroken: dict[str, bytes], tiles: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        map_scene(classifier, scene, out / "map.tif", tile=4, keep_unfinished=True, on_tile=after(tiles, stop))
    assert [path.name for path in out.iterdir()] == [".map.tif.unfinished"]
    seen: list[int] = []
    # The tiles are those of the run that began.
    map_scene(classifier, scene, out / "map.tif", tile=8, resume=True, on_tile=lambda done, _: seen.append(done))
    assert seen == [16 * number for number in range(tiles, 19)]
    assert contents(out) == unbroken


def test_nothing_to_resume_is_a_run_from_the_beginning(
    classifier: Classifier, scene: xr.DataArray, out: Path, unbroken: dict[str, bytes]
) -> None:
    map_scene(classifier, scene, out / "map.tif", resume=True)
    assert contents(out) == unbroken


def test_without_resume_a_map_begins_anew(
    classifier: Classifier, scene: xr.DataArray, out: Path, unbroken: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        map_scene(classifier, scene, out / "map.tif", tile=4, keep_unfinished=True, on_tile=after(5, stop))
    seen: list[int] = []
    map_scene(classifier, scene, out / "map.tif", tile=4, on_tile=lambda done, _: seen.append(done))
    assert seen[0] == 16
    assert contents(out) == unbroken


def test_an_unfinished_map_of_something_else_is_refused_and_kept(
    classifier: Classifier, scene: xr.DataArray, out: Path, small_split: Split, quick: Settings
) -> None:
    with pytest.raises(KeyboardInterrupt):
        map_scene(classifier, scene, out / "map.tif", tile=4, keep_unfinished=True, on_tile=after(5, stop))
    before = contents(out)
    other = Classifier(
        classifier.network,
        classifier.transform,
        classifier.card | {"data": "other"},
        classifier.novelty,
        classifier.sets,
    )
    with pytest.raises(OutputError, match="of another classifier"):
        map_scene(other, scene, out / "map.tif", resume=True)
    file = Path(scene.attrs["source"])
    changed = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(changed, changed))
    with pytest.raises(OutputError, match="of another scene"):
        map_scene(classifier, scene, out / "map.tif", resume=True)
    assert contents(out) == before


@pytest.mark.parametrize("damage", [b"\n12 16 0", b"\n12 16 0 4 1", b"\n\xff"])
def test_a_journal_that_was_cut_short_counts_up_to_there(
    classifier: Classifier, scene: xr.DataArray, out: Path, unbroken: dict[str, bytes], damage: bytes
) -> None:
    with pytest.raises(KeyboardInterrupt):
        map_scene(classifier, scene, out / "map.tif", tile=4, keep_unfinished=True, on_tile=after(5, stop))
    with (out / ".map.tif.unfinished" / "done.txt").open("ab") as journal:
        journal.write(damage)
    with pytest.raises(KeyboardInterrupt):
        map_scene(classifier, scene, out / "map.tif", resume=True, keep_unfinished=True, on_tile=after(4, stop))
    seen: list[int] = []
    map_scene(classifier, scene, out / "map.tif", resume=True, on_tile=lambda done, _: seen.append(done))
    assert seen[0] == 16 * 8  # of the second run the first call told what was there
    assert contents(out) == unbroken


def test_a_file_that_vanishes_half_way_is_told_and_the_map_goes_on_when_it_is_back(
    classifier: Classifier, scene: xr.DataArray, out: Path, unbroken: dict[str, bytes]
) -> None:
    file = Path(scene.attrs["source"])
    away = file.with_name("away.tif")
    with pytest.raises(SceneError):
        map_scene(
            classifier,
            scene,
            out / "map.tif",
            tile=4,
            keep_unfinished=True,
            on_tile=after(5, lambda: file.rename(away)),
        )
    assert not (out / "map.tif").exists()
    away.rename(file)
    map_scene(classifier, scene, out / "map.tif", resume=True)
    assert contents(out) == unbroken


def test_a_file_that_changes_half_way_gives_no_map(classifier: Classifier, scene: xr.DataArray, out: Path) -> None:
    def change() -> None:
        os.utime(scene.attrs["source"], ns=(1, 1))

    with pytest.raises(SceneError, match="has changed while it was mapped"):
        map_scene(classifier, scene, out / "map.tif", tile=4, keep_unfinished=True, on_tile=after(5, change))
    assert contents(out) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_runs_do_not_write_one_map(classifier: Classifier, scene: xr.DataArray, out: Path) -> None:
    def again() -> None:
        map_scene(classifier, scene, out / "map.tif")

    with pytest.raises(OutputError, match="another run is writing"):
        map_scene(classifier, scene, out / "map.tif", tile=4, on_tile=after(3, again))


KILLED = """
import sys, time
from spectralmamba import Classifier, inference, map_scene, open_scene

inference.BLOCK = 4
classifier, scene = Classifier.load(sys.argv[1], "cpu"), open_scene(sys.argv[2])
print("ready", flush=True)
map_scene(classifier, scene, sys.argv[3], tile=4, resume=True, on_tile=lambda *_: time.sleep(0.02))
print("done", flush=True)
"""


def test_a_killed_map_goes_on_to_the_same_bytes(
    classifier: Classifier, scene: xr.DataArray, tmp_path: Path, out: Path, unbroken: dict[str, bytes]
) -> None:
    classifier.save(tmp_path / "model.safetensors")
    program = [
        sys.executable,
        "-c",
        KILLED,
        str(tmp_path / "model.safetensors"),
        scene.attrs["source"],
        str(out / "map.tif"),
    ]
    kills = 0
    for _ in range(20):
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0.02, 0.4))
            process.send_signal(signal.SIGKILL)
            finished = "done" in process.stdout.read()
        kills += not finished
        if finished or (out / "map.tif").exists():
            break
    else:
        pytest.fail("it never came to an end")
    assert kills > 0
    map_scene(classifier, scene, out / "map.tif", resume=True)
    assert contents(out) == unbroken


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    unfinished = UnfinishedMap(tmp_path / "map.tif", {"width": 70, "height": 5, "count": 1})
    with unfinished.opened({"scene": "a"}, (4, 4), {"classes": {"dtype": "uint8", "nodata": 0}}, resume=False) as tile:
        assert tile == (4, 4)
        assert not unfinished.holds(slice(0, 4), slice(4, 8))
        unfinished.write(slice(0, 4), slice(4, 8), {"classes": np.ones((4, 4), np.uint8)}, 16)
        assert unfinished.holds(slice(0, 4), slice(4, 8))
        assert not unfinished.holds(slice(0, 4), slice(0, 4))
        unfinished.discard()
    assert list(tmp_path.iterdir()) == []
