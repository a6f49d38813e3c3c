"""Pixels a second of whole scenes in memory, beside the ways that others go.

    python benchmarks/mapping.py [--patches 3,7] [--rows 256] [--whole-rows 256] [--rounds 5] [--device auto] [--write-docs]

Everything classifies the same pixels of one simulated scene, round by round in turn, so that a machine that others use as well
slows all. The network is SpectralMamba by its recommended settings without a companion, the same trained one in all of its rows:

- whole scene: what `map_scene` computes, without files; on a GPU of the scene beside and below itself, up to `--whole-rows`: a
  small one does not fill it.
- whole scene, float16: the same, matrices multiplied in float16 (a GPU alone has it).
- whole scene, with its companion: the same of the recommended committee.
- gathered patches in memory: all patches cut out beforehand, which is not timed, batches of 1 024.
- data loader: a torch DataLoader that cuts the patch around each pixel, batches of 1 024, 2 processes.

With them classifiers of the field on the same scene: scikit-learn's support vector machine and random forest pixel by pixel, and
a small 3D convolutional network in the manner of Li, Zhang and Shen 2017 (two convolutions, 5 × 5 pixels) over patches from a data
loader. How well they classify does not matter here, so they learn little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from performance_page import provenance, write_section
from spectralmamba import Classifier, Settings, fit, simulate_scene, split_random
from spectralmamba.classifier import find_device
from spectralmamba.pixels import Pixels, as_input

BATCH, WORKERS, CNN_PATCH = 1024, 2, 5
EXPONENTIALS, LINK = 3.6e12, 51e9  # an H100's or H200's special-function units, and its copies from pinned memory
WHOLE, HALF, COMMITTEE = "whole scene", "whole scene, float16", "whole scene, with its companion"
GATHERED, LOADER = "gathered patches in memory", "data loader"
SVM, FOREST, CNN = "SVM, pixel by pixel", "random forest, pixel by pixel", "3D-CNN, data loader"


class Cut(Dataset[Tensor]):
    """The patch `(L, P, P)` around each pixel of a padded scene `(L, H, W)`, cut when it is asked for."""

    def __init__(self, padded: np.ndarray, patch: int) -> None:
        self.padded, self.patch = padded, patch
        self.width = padded.shape[2] - patch + 1

    def __len__(self) -> int:
        return (self.padded.shape[1] - self.patch + 1) * self.width

    def __getitem__(self, number: int) -> Tensor:
        row, column = divmod(number, self.width)
        return torch.from_numpy(self.padded[:, row : row + self.patch, column : column + self.patch].copy())


class ThreeDimensional(nn.Module):
    """Two 3D convolutions over bands and pixels, then a linear classifier (Li, Zhang and Shen 2017, Remote Sensing 9(1) 67)."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 16, (7, 3, 3), padding=(1, 0, 0))
        self.second = nn.Conv3d(16, 32, (3, 3, 3), padding=(1, 0, 0))
        self.head = nn.LazyLinear(classes)
        self(torch.zeros(1, bands, CNN_PATCH, CNN_PATCH))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of patches `(B, L, P, P)`."""
        return self.head(self.second(self.first(x[:, None]).relu()).relu().flatten(1))


def trained(
    patch: int, arguments: argparse.Namespace, device: str, companion: str = "none"
) -> tuple[Classifier, Any, Any]:
    """Return a classifier, its scene without nodata, and labels."""
    scene, labels = simulate_scene(rows=arguments.rows, columns=arguments.rows, bands=arguments.bands, classes=6)
    scene = scene.copy(data=np.nan_to_num(scene.values))
    scene["good"].values[:] = True
    alone = Settings(patch=patch, steps=30, companion=companion, self_training_rounds=0, set_coverage=0)
    classifier = fit(scene, labels, split_random(labels, per_class=10, patch=patch), alone, device=device)
    classifier.novelty = None
    return classifier, scene, labels


def in_tiles(classifier: Classifier, scene: Any, precision: Any = "float32") -> Callable[[], np.ndarray]:
    """Return what classifies a scene by tiles, and returns the classes."""
    return lambda: np.concatenate([tile.ids.ravel() for tile in classifier.tiles(scene, precision=precision)])


def enlarged(scene: Any, rows: int) -> Any:
    """Return a scene beside and below itself, of so many rows and columns."""
    times = -(-rows // scene.sizes["y"])
    values = np.tile(scene.values, (1, times, times))[:, :rows, :rows].copy()
    coordinates = {name: scene.coords[name] for name in ("band", "wavelength", "fwhm", "good")}
    return xr.DataArray(values, dims=scene.dims, coords=coordinates, attrs=scene.attrs)


def ways(classifier: Classifier, scene: Any, labels: Any) -> dict[str, Callable[[], object]]:
    """Return what classifies all pixels of the scene, by name."""
    device, patch, network = classifier.device, classifier.patch, classifier.network.eval()
    pixels = Pixels.from_scene(scene, classifier.bands, device)
    pixels = pixels.with_values(classifier.transform(pixels.values))
    everything = torch.arange(len(pixels), device=device)
    gathered = torch.cat([as_input(part).cpu().contiguous() for part in pixels.patches(everything, patch, BATCH)])
    cube = pixels.values.cpu().numpy().T.reshape(-1, *scene.shape[1:])

    def classify(batches: Any, model: nn.Module) -> None:
        with torch.inference_mode():
            for batch in batches:
                model(batch.to(device)).argmax(1).cpu()

    def loader(width: int) -> DataLoader[Tensor]:
        padded = np.pad(cube, ((0, 0), (width // 2,) * 2, (width // 2,) * 2), "edge")
        return DataLoader(Cut(padded, width), BATCH, num_workers=WORKERS)

    single = (lambda x: x[:, :, 0, 0]) if patch == 1 else (lambda x: x)
    found: dict[str, Callable[[], object]] = {
        GATHERED: lambda: classify(gathered.split(BATCH), network),
        LOADER: lambda: classify((single(batch) for batch in loader(patch)), network),
    }
    spectra, known = pixels.values.cpu().numpy(), labels.values.ravel() > 0
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(known))[:300]
    svm = SVC().fit(spectra[chosen], labels.values.ravel()[chosen])
    forest = RandomForestClassifier(100, n_jobs=-1).fit(spectra[chosen], labels.values.ravel()[chosen])
    convolutional = ThreeDimensional(spectra.shape[1], 6).eval().to(device)
    return found | {
        SVM: lambda: svm.predict(spectra),
        FOREST: lambda: forest.predict(spectra),
        CNN: lambda: classify(loader(CNN_PATCH), convolutional),
    }


def measure(arguments: argparse.Namespace, patch: int, device: str) -> tuple[dict[str, list[float]], str]:
    """Return pixels a second of each round, by what classifies, and what else there is to say."""
    classifier, scene, labels = trained(patch, arguments, device)
    committee, _, _ = trained(patch, arguments, device, "label propagation")
    whole = scene if arguments.whole_rows == arguments.rows else enlarged(scene, arguments.whole_rows)
    candidates: dict[str, Callable[[], object]] = {WHOLE: in_tiles(classifier, whole)}
    if device != "cpu":
        candidates[HALF] = in_tiles(classifier, whole, "float16")
    candidates[COMMITTEE] = in_tiles(committee, whole)
    of_whole = len(candidates)
    candidates |= ways(classifier, scene, labels)
    speeds: dict[str, list[float]] = {name: [] for name in candidates}
    classes = [candidates[name]() for name in list(candidates)[:of_whole]]
    for _ in range(arguments.rounds):
        for number, (name, classify) in enumerate(candidates.items()):
            start = time.perf_counter()
            classify()
            pixels = (whole if number < of_whole else scene)[0].size
            speeds[name].append(pixels / (time.perf_counter() - start))
    more = ""
    if device != "cpu":
        more = (
            f"\n\nfloat16 and float32 give {np.mean(np.equal(classes[0], classes[1])):.4%} of the pixels the same class. "
            + limits(classifier, statistics.median(speeds[WHOLE]), statistics.median(speeds[HALF]))
        )
    return speeds, more


def limits(classifier: Classifier, *found: float) -> str:
    """Say what share of an H100's limits so many pixels a second in float32 and float16 are."""
    network: Any = classifier.network
    block, embedding, bands = network.blocks[0], network.embedding, len(classifier.bands)
    channels, states = block.A_log.shape
    # Decays, gates of the merging, softplus, two SiLUs.
    exponentials = embedding.tokens * channels * (states + 3) + (9 * bands if classifier.patch > 1 else 0)
    exponential, link = EXPONENTIALS / exponentials, LINK / (4 * bands)
    shares = " and ".join(f"{speed / exponential:.0%} and {speed / link:.0%}" for speed in found)
    return (
        f"A pixel takes {exponentials} exponentials, which bound an H100 or H200 to {exponential:.2g} pixels a second "
        f"({EXPONENTIALS:.2g} a second), and {4 * bands} bytes over its link to {link:.2g} ({LINK:.2g} bytes a second, "
        f"measured). Shares of the two limits in float32 and in float16: {shares}."
    )


def table(speeds: dict[str, list[float]]) -> str:
    """Return a table of speeds, and of how many times as fast the whole scene is, round by round."""
    lines = ["| | pixels a second | whole scene, times as fast |", "| --- | --- | --- |"]
    for name, found in speeds.items():
        ratios = [ours / other for ours, other in zip(speeds[WHOLE], found, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if name != WHOLE else ""
        lines.append(f"| {name} | {statistics.median(found):,.0f} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write docs/performance.md if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", default="3,7", help="widths of patches, separated by commas")
    parser.add_argument("--rows", type=int, default=256, help="rows and columns of the scene")
    parser.add_argument("--whole-rows", type=int, help="rows and columns of the scene in tiles; 4 096 on a GPU")
    parser.add_argument("--bands", type=int, default=145)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/performance.md")
    arguments = parser.parse_args()
    device = str(find_device(arguments.device))
    arguments.whole_rows = arguments.whole_rows or (arguments.rows if device == "cpu" else 4096)
    measured = {int(patch): measure(arguments, int(patch), device) for patch in arguments.patches.split(",")}
    where = provenance(device)
    parts = [f"P = {patch}:\n\n{table(speeds)}{more}" for patch, (speeds, more) in measured.items()]
    print(json.dumps(where), *parts, sep="\n\n")
    if arguments.write_docs:
        what = (
            f"Written by `python benchmarks/mapping.py --write-docs`. {arguments.rows} × {arguments.rows} pixels in memory, "
            f"{arguments.bands} bands, the recommended network without a companion, but in one row; in tiles "
            f"{arguments.whole_rows} × {arguments.whole_rows}. All ways classify the same pixels, round by round in turn; "
            f"medians of {arguments.rounds} rounds, and the ratio in the same round: median, lowest and highest. "
            "What a row is, the script says."
        )
        head = f"- {where['date']}, commit {where['commit']}, {where['machine']}, {torch.get_num_threads()} threads"
        section = "mapping" if device == "cpu" else "mapping on a GPU"
        write_section(section, (f"## Maps{'' if device == 'cpu' else ' on a GPU'}", what, head, *parts))


if __name__ == "__main__":
    main()
