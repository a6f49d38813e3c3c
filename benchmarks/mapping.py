"""Pixels a second of whole scenes in memory, beside the ways that others go.

    python benchmarks/mapping.py [--patches 3,7] [--rows 192] [--rounds 5] [--device auto] [--write-docs]

Everything classifies the same pixels of one simulated scene, round by round in turn, so that a machine that others use as well
slows all. The network is SpectralMamba by its recommended settings without a companion, the same trained one in all of its rows:

- whole scene: what `map_scene` computes, without files.
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
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from performance_page import provenance, write_section
from spectralmamba import Classifier, Settings, fit, simulate_scene, split_random
from spectralmamba.classifier import find_device
from spectralmamba.pixels import Pixels, as_input

BATCH, WORKERS, CNN_PATCH = 1024, 2, 5
WHOLE, GATHERED, LOADER = "whole scene", "gathered patches in memory", "data loader"
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


def trained(patch: int, arguments: argparse.Namespace, device: str) -> tuple[Classifier, Any, Any]:
    """Return a classifier, its scene without nodata, and labels."""
    scene, labels = simulate_scene(rows=arguments.rows, columns=arguments.rows, bands=arguments.bands, classes=6)
    scene = scene.copy(data=np.nan_to_num(scene.values))
    scene["good"].values[:] = True
    alone = Settings(patch=patch, steps=30, companion="none", self_training_rounds=0, set_coverage=0)
    classifier = fit(scene, labels, split_random(labels, per_class=10, patch=patch), alone, device=device)
    classifier.novelty = None
    return classifier, scene, labels


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
        WHOLE: lambda: list(classifier.tiles(scene)),
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


def measure(arguments: argparse.Namespace, patch: int, device: str) -> dict[str, list[float]]:
    """Return pixels a second of each round, by what classifies."""
    classifier, scene, labels = trained(patch, arguments, device)
    candidates = ways(classifier, scene, labels)
    speeds: dict[str, list[float]] = {name: [] for name in candidates}
    candidates[WHOLE]()
    for _ in range(arguments.rounds):
        for name, classify in candidates.items():
            start = time.perf_counter()
            classify()
            speeds[name].append(scene.sizes["y"] * scene.sizes["x"] / (time.perf_counter() - start))
    return speeds


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
    parser.add_argument("--rows", type=int, default=192, help="rows and columns of the scene")
    parser.add_argument("--bands", type=int, default=145)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write-docs", action="store_true", help="write the section of docs/performance.md")
    arguments = parser.parse_args()
    device = str(find_device(arguments.device))
    measured = {int(patch): measure(arguments, int(patch), device) for patch in arguments.patches.split(",")}
    where = provenance(device)
    parts = [f"P = {patch}:\n\n{table(speeds)}" for patch, speeds in measured.items()]
    print(json.dumps(where), *parts, sep="\n\n")
    if arguments.write_docs:
        what = (
            f"Written by `python benchmarks/mapping.py --write-docs`. {arguments.rows} × {arguments.rows} pixels in memory, "
            f"{arguments.bands} bands, the recommended network without a companion. All ways classify the same pixels, round by "
            f"round in turn; medians of {arguments.rounds} rounds, and the ratio in the same round: median, lowest and highest. "
            "What a row is, the script says."
        )
        head = f"- {where['date']}, commit {where['commit']}, {where['machine']}, {torch.get_num_threads()} threads"
        section = "mapping" if device == "cpu" else "mapping on a GPU"
        write_section(section, (f"## Maps{'' if device == 'cpu' else ' on a GPU'}", what, head, *parts))


if __name__ == "__main__":
    main()
