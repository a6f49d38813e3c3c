"""Tiles follow the scene's file and the memory."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from spectralmamba import Classifier
from spectralmamba.errors import OutputError, SettingsError
from spectralmamba.inference import BLOCK
from spectralmamba.memory import bytes_of, memory_taken, peak_memory
from spectralmamba.tiling import choose_tile


def scene_of(height: int, width: int, chunk: tuple[int, int]) -> xr.DataArray:
    """A scene of that size that takes no memory, in a file of such blocks."""
    scene = xr.DataArray(np.broadcast_to(np.float32(0), (20, height, width)), dims=("band", "y", "x"))
    scene.encoding["preferred_chunks"] = {"band": 20, "y": chunk[0], "x": chunk[1]}
    return scene


@pytest.mark.parametrize(
    ("chunk", "whole_lines"), [((1, 3000), True), ((256, 256), False), ((512, 512), False), ((8, 3000), True)]
)
def test_tiles_are_whole_blocks_of_the_file(classifier: Classifier, chunk: tuple[int, int], whole_lines: bool) -> None:
    rows, columns = choose_tile(classifier, scene_of(100_000, 3000, chunk))
    assert rows % BLOCK == 0
    assert columns % BLOCK == 0
    assert rows % min(chunk[0], BLOCK) == 0
    if whole_lines:
        assert columns >= 3000
    else:
        assert rows % chunk[0] == 0
        assert columns % chunk[1] == 0 or columns >= 3000


@pytest.mark.parametrize("height", [10_000, 1_000_000])
def test_tiles_do_not_grow_with_the_length_of_the_scene(classifier: Classifier, height: int) -> None:
    rows, columns = choose_tile(classifier, scene_of(height, 3000, (1, 3000)))
    assert rows * columns * 20 * 4 < 1 << 30
    assert (rows, columns) == choose_tile(classifier, scene_of(100_000, 3000, (1, 3000)))


def test_less_memory_makes_smaller_tiles_down_to_the_least(classifier: Classifier) -> None:
    scene, areas = scene_of(100_000, 30_000, (1, 30_000)), []
    for beside in (400, 200, 100, 60):
        rows, columns = choose_tile(classifier, scene, memory=memory_taken() + beside * 10**6, workers=1)
        areas.append(rows * columns)
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] < areas[0]
    with pytest.raises(OutputError, match="memory is too little") as error:
        choose_tile(classifier, scene, memory=1000)
    least = (
        int(str(error.value).partition("at least ")[2].split()[0]) + 2
    )  # rounded; other tests' memory comes and goes
    assert choose_tile(classifier, scene, memory=least * 10**6 + 20 * 10**6)


def test_a_small_scene_is_one_tile(classifier: Classifier) -> None:
    assert choose_tile(classifier, scene_of(12, 70, (1, 70))) == (64, 128)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("512MB", 512_000_000), ("2 GB", 2_000_000_000), ("1.5GiB", 1_610_612_736), ("1000", 1000), ("3k", 3000)],
)
def test_amounts_of_memory_are_read(text: str, bytes_: int) -> None:
    assert bytes_of(text) == bytes_


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1XB", "GB", "1 2 MB", "I"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no amount of memory"):
        bytes_of(text)


def test_memory_now_is_no_more_than_the_most() -> None:
    most = peak_memory()
    assert most is not None
    assert 10**7 < memory_taken() <= most * 1.01
