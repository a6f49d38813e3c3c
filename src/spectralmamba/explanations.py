"""What the viewer shows of single pixels: spectra, class probabilities, and what decided in some of them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from spectralmamba import inference
from spectralmamba.classifier import Classifier
from spectralmamba.models.committee import Committee
from spectralmamba.models.spectral_mamba import GatedMerging
from spectralmamba.pixels import Pixels, as_input
from spectralmamba.report.pixel_files import Explanations, PixelValues, every_nth, find_step, quantise, share_levels

MOST_EXPLAINED = 200
MOST_BLOCKS = 20
_AT_A_TIME = 64  # pixels; of a patch of 11 × 11 and 200 bands 6 MB each time


def pixel_values(classifier: Classifier, scene: xr.DataArray) -> PixelValues:
    """Return spectra and class probabilities of every n-th pixel, n as small as a page of 15 MB lets it be.

    Args:
        classifier: What classifies.
        scene: `(band, y, x)`, in the classifier's bands.
    """
    step = find_step(scene.shape[1:], len(classifier.bands), len(classifier.classes))
    every = slice(None, None, step)
    spectra = scene.isel(band=classifier.bands, y=every, x=every).values.astype(np.float32)  # (G, h, w)
    spectra[:, ~np.isfinite(spectra).all(0)] = np.nan  # what is missing in one band is nodata
    levels, offset, scale = quantise(np.moveaxis(spectra, 0, -1))
    return PixelValues(
        step,
        (classifier.bands + 1).astype(np.int32),
        scene["wavelength"].values.astype(np.float64),
        offset,
        scale,
        levels,
        classifier.classes.astype(np.int32),
        share_levels(_probabilities(classifier, scene, step)),
    )


def choose_pixels(tested: NDArray[np.bool_], wrong: NDArray[np.bool_], step: int = 1) -> NDArray[np.bool_]:
    """Choose up to `MOST_EXPLAINED` test pixels, evenly among them, half of them mapped wrong if there are so many.

    Args:
        tested: Which pixels are, bool `(H, W)`.
        wrong: Which pixels are mapped wrong, bool `(H, W)`.
        step: n, of which only every n-th row and column is chosen from.
    """
    shown = np.zeros(tested.shape, bool)
    shown[::step, ::step] = True
    missed, right = (np.argwhere(shown & tested & side) for side in (wrong, ~wrong))
    missed = _evenly(missed, max(MOST_EXPLAINED // 2, MOST_EXPLAINED - len(right)))
    chosen = np.zeros(tested.shape, bool)
    for part in (missed, _evenly(right, MOST_EXPLAINED - len(missed))):
        chosen[*part.T] = True
    return chosen


def explain(classifier: Classifier, scene: xr.DataArray, where: NDArray[np.bool_]) -> Explanations:
    """Return what decided in pixels: which bands, and the gate over the patch.

    Blocks of neighbouring bands are replaced by the mean of the training side, one after the other, in all pixels of the patch
    (occlusion; Zeiler and Fergus 2014, arXiv 1311.2901), in normalised spectra, as the network sees them: whitening would make of a
    block that is replaced before it a step as no spectrum has one. What a block is worth is by how much the probability of the
    pixel's class falls without it: above 0 it speaks for the class, below 0 against it.

    Args:
        classifier: What classifies.
        scene: `(band, y, x)`, in the classifier's bands.
        where: Which pixels, bool `(H, W)`; those that are nodata are passed over.
    """
    pixels = Pixels.from_scene(scene, classifier.bands, classifier.device)
    positions, blocks = pixels.at(where), _blocks(classifier.bands)
    classifier.network.eval()

    def look(batch: Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        spectra = pixels.gathered(pixels.neighbourhoods(batch, classifier.patch))  # (b, P², G)
        return _explain_patches(classifier, spectra, blocks)

    with inference.threads(torch.get_num_threads() if classifier.device.type == "cpu" else 1) as pool:
        parts = list(pool.map(look, positions.split(_AT_A_TIME))) if len(positions) else []
    nothing = np.zeros(0, np.int32), np.zeros((0, len(blocks)), np.float32), np.zeros((0, 0, 0), np.float32)
    classes, effects, gates = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else nothing
    bands = (classifier.bands + 1).astype(np.int32)
    rows, columns = (index[positions].cpu().numpy().astype(np.int32) for index in (pixels.rows, pixels.columns))
    first, last = bands[[block.start for block in blocks]], bands[[block.stop - 1 for block in blocks]]
    return Explanations(rows, columns, classes, first, last, effects, gates)


@torch.inference_mode()
def _explain_patches(
    classifier: Classifier, spectra: Tensor, blocks: list[slice]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Return class ids `(b,)`, effects `(b, J)` and gates `(b, P, P)` of patches `(b, P², G)`."""
    transform, gating = classifier.transform, _gating(classifier.network)
    seen = transform(spectra.flatten(0, 1)).unflatten(0, spectra.shape[:2])
    mean = transform(transform.mean[None])[0]  # (G,)
    probabilities = classifier.network(as_input(seen)).softmax(1)
    whole, chosen = probabilities.max(1, keepdim=True)
    effects = []
    for block in blocks:
        without = seen.clone()
        without[..., block] = mean[block]
        effects.append(whole - classifier.network(as_input(without)).softmax(1).gather(1, chosen))
    gates = seen.new_zeros(len(seen), 0, 0) if gating is None else gating.gates(as_input(seen)).mean(-1)
    ids = classifier.classes[chosen[:, 0].cpu().numpy()].astype(np.int32)
    return ids, torch.cat(effects, 1).cpu().numpy(), gates.cpu().numpy()


def _blocks(bands: NDArray[Any]) -> list[slice]:
    """Return about `MOST_BLOCKS` blocks of the bands that are used, none over bands that are not."""
    width = math.ceil(len(bands) / MOST_BLOCKS)
    edges = [0, *(np.flatnonzero(np.diff(bands) > 1) + 1).tolist(), len(bands)]
    blocks = []
    for start, end in pairwise(edges):
        cuts = np.linspace(start, end, math.ceil((end - start) / width) + 1).round().astype(int).tolist()
        blocks += [slice(first, last) for first, last in pairwise(cuts)]
    return blocks


def _gating(network: nn.Module) -> GatedMerging | None:
    """Return what weighs the pixels of a patch in a network, None if nothing does so pixel by pixel."""
    merging = getattr(network.network if isinstance(network, Committee) else network, "merging", None)
    return merging if isinstance(merging, GatedMerging) else None


def _probabilities(classifier: Classifier, scene: xr.DataArray, step: int) -> NDArray[np.float32]:
    """Return the class probabilities of every n-th pixel, `(h, w, K)`, NaN at nodata."""
    where = np.zeros(scene.shape[1:], bool)
    where[::step, ::step] = True
    found = np.full((len(classifier.classes), *every_nth(scene.shape[1:], step)), np.nan, np.float32)
    for tile in classifier.tiles(scene, where=where):
        row, column = -(-tile.rows.start // step), -(-tile.columns.start // step)
        part = tile.probabilities[:, row * step - tile.rows.start :: step, column * step - tile.columns.start :: step]
        found[:, row : row + part.shape[1], column : column + part.shape[2]] = part
    return np.moveaxis(found, 0, -1)


def _evenly(positions: NDArray[Any], most: int) -> NDArray[Any]:
    """Take so many of the positions at most, evenly."""
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).round().astype(int)]
