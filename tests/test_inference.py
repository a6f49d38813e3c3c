"""Whole scenes: the same as patch by patch, and the same bits however they are read and computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from spectralmamba import Classifier, Settings, fit, inference, split_random
from spectralmamba.inference import Tile
from spectralmamba.models.committee import Committee
from spectralmamba.pixels import Pixels


@pytest.fixture(scope="module", params=[1, 3, 5, 7])
def trained(
    request: pytest.FixtureRequest, _simulated: tuple[xr.DataArray, xr.DataArray], quick: Settings
) -> Classifier:
    """A classifier of each patch width, with all that a map can hold."""
    scene, labels = _simulated
    split = split_random(labels, per_class=4, patch=request.param)
    return fit(scene, labels, split, quick.replace(patch=request.param), device="cpu")


@pytest.fixture
def scene(small_scene: xr.DataArray) -> xr.DataArray:
    """A scene of 24 × 36 pixels with holes: a corner, single pixels, and a band of one pixel that is missing in one band."""
    large = small_scene.isel(y=np.arange(24) % 12, x=np.arange(36) % 12).copy(deep=True)
    large.values[:, 3, 30] = np.nan
    large.values[5, 17, 20] = np.inf
    large.values[:, 20:22, 8:30] = np.nan
    return large


def values_of(tiles: Iterator[Tile], scene: xr.DataArray, classes: int) -> dict[str, np.ndarray]:
    """What tiles say, as whole arrays; what no tile covers stays at values that none has."""
    shape = scene.shape[1:]
    found = {
        "ids": np.full(shape, 77, np.uint16),
        "probabilities": np.full((classes, *shape), -1, np.float32),
        "novelty": np.full(shape, -1, np.float32),
        "sets": np.ones((classes, *shape), bool),
    }
    for tile in tiles:
        for name, whole in found.items():
            whole[..., tile.rows, tile.columns] = getattr(tile, name)
    return found


@pytest.mark.usefixtures("small_blocks")
def test_a_whole_scene_is_what_its_patches_are(trained: Classifier, scene: xr.DataArray) -> None:
    found = values_of(trained.tiles(scene), scene, len(trained.classes))
    pixels = Pixels.from_scene(scene, trained.bands)
    expected = trained.probabilities(pixels, torch.arange(len(pixels)))
    valid = np.isfinite(scene.values).all(0)
    at = pixels.rows.numpy(), pixels.columns.numpy()
    np.testing.assert_array_equal(found["ids"] > 0, valid)
    np.testing.assert_allclose(found["probabilities"][:, *at].T, expected, rtol=0, atol=1e-5)
    assert np.isnan(found["probabilities"][:, ~valid]).all()
    assert not found["sets"][:, ~valid].any()


@pytest.mark.parametrize("seen_in_image", [True, False])
def test_blocks_are_computed_over_the_image_where_all_of_a_patch_is_there(
    trained: Classifier, scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch, seen_in_image: bool
) -> None:
    gathered: list[int] = []
    look_at = inference.look_at

    def counting(classifier: Classifier, pixels: Pixels, positions: torch.Tensor, batch_size: int) -> inference.Seen:
        gathered.append(len(positions))
        return look_at(classifier, pixels, positions, batch_size)

    monkeypatch.setattr(inference, "look_at", counting)
    if not seen_in_image:
        monkeypatch.setattr(inference, "takes_patches", lambda _: False)
    list(trained.tiles(scene))
    valid = np.isfinite(scene.values).all(0)
    reach = trained.patch // 2
    around = np.lib.stride_tricks.sliding_window_view(np.pad(valid, reach), (trained.patch, trained.patch))
    incomplete = valid & ~around.all((2, 3))
    assert sum(gathered) == (incomplete.sum() if seen_in_image else valid.sum())


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size", [1, 8, 20, 512])
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_tiles_and_workers_change_no_bit(trained: Classifier, scene: xr.DataArray, size: int, workers: int) -> None:
    found = values_of(trained.tiles(scene, size=size, workers=workers), scene, len(trained.classes))
    expected = values_of(trained.tiles(scene, workers=2), scene, len(trained.classes))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.usefixtures("small_blocks")
def test_the_number_of_threads_that_torch_has_changes_no_bit(trained: Classifier, scene: xr.DataArray) -> None:
    before = torch.get_num_threads()
    expected = trained.predict_proba(scene)
    try:
        torch.set_num_threads(3)
        xr.testing.assert_identical(trained.predict_proba(scene), expected)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


class TensorsAlone(nn.Module):
    """A network that knows nothing of images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of a tensor."""
        assert isinstance(x, torch.Tensor)
        return self.network(x)


@pytest.mark.usefixtures("small_blocks")
def test_a_network_of_tensors_alone_gets_tensors(trained: Classifier, scene: xr.DataArray) -> None:
    expected = trained.predict_proba(scene)
    network = trained.network
    assert isinstance(network, Committee)
    try:
        trained.network = Committee(TensorsAlone(network.network), network.companion)
        found = trained.predict_proba(scene)
    finally:
        trained.network = network
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_only_pixels_that_are_asked_for_are_classified(trained: Classifier, scene: xr.DataArray) -> None:
    where = np.zeros(scene.shape[1:], bool)
    where[7, 9] = where[12:14, 3:20] = where[23, 35] = True
    found = values_of(trained.tiles(scene, where=where), scene, len(trained.classes))
    expected = trained.predict_proba(scene).values
    np.testing.assert_array_equal(found["ids"] > 0, where & np.isfinite(scene.values).all(0))
    np.testing.assert_allclose(found["probabilities"][:, where], expected[:, where], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_a_tile_without_pixels_that_are_asked_for_is_not_read(trained: Classifier, scene: xr.DataArray) -> None:
    where = np.zeros(scene.shape[1:], bool)
    where[7, 9] = True
    (tile,) = trained.tiles(scene, size=8, where=where)
    assert (tile.rows, tile.columns) == (slice(0, 8), slice(8, 16))
    assert list(trained.tiles(scene, where=np.zeros_like(where))) == []


def test_a_file_that_fails_on_the_way_says_so_and_torch_has_its_threads_back(
    trained: Classifier, scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("the file ends too early")

    before = torch.get_num_threads()
    monkeypatch.setattr(inference, "_validity", fails)
    with pytest.raises(OSError, match="ends too early"):
        list(trained.tiles(scene))
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("small_blocks")
def test_whoever_stops_listening_leaves_no_thread_behind(trained: Classifier, scene: xr.DataArray) -> None:
    before = threading.active_count()
    tiles = trained.tiles(scene, size=4)
    next(tiles)
    tiles.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 9), (9, 2), (6, 6)])
def test_scenes_smaller_than_a_patch_are_classified(
    trained: Classifier, scene: xr.DataArray, shape: tuple[int, int]
) -> None:
    small = scene.isel(y=slice(12, 12 + shape[0]), x=slice(12, 12 + shape[1]))
    pixels = Pixels.from_scene(small, trained.bands)
    found = trained.predict_proba(small).values
    expected = trained.probabilities(pixels, torch.arange(len(pixels)))
    np.testing.assert_allclose(found[:, pixels.rows.numpy(), pixels.columns.numpy()].T, expected, rtol=0, atol=1e-5)
