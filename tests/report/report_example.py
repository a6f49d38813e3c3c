"""A run's folder as the contract describes it, made without training anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine

NAMES = ("lettuce, 4 weeks", "corn <script>alert('x')</script>", "Weiß & Grün “Wiese”", "asphalt", "eau")
COLORS = ("#4daf4a", "#ffe119", "#f781bf", "#222222", "#377eb8")
HOSTILE = NAMES[1]


@dataclass(frozen=True)
class Example:
    """Size and manner of a made-up run."""

    height: int = 60
    width: int = 80
    classes: int = 5
    bands: int = 120
    method: str = "random"
    patch: int = 3
    seed: int = 0


def make_run(folder: Path, example: Example) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(example.seed)
    ids = np.arange(1, example.classes + 1) * (10 if example.classes < 25 else 1)
    classes = [{"id": int(id), "name": _name(index), "color": _color(index)} for index, id in enumerate(ids)]
    truth, nodata = _fields(example, ids, rng)
    role = _roles(example, truth, nodata, rng)
    predicted = np.where(rng.random(truth.shape) < 0.06, rng.choice(ids, truth.shape), truth)
    predicted[nodata] = 0
    reference = np.where(role > 0, truth, 0)
    record = _record(example, role, reference, ids)
    _write_rasters(folder, role, reference, predicted, record, rng)
    scores = _scores(classes, reference[role == 2], predicted[role == 2], record, example)
    (folder / "scores.json").write_text(json.dumps(scores, allow_nan=False))
    (folder / "settings.toml").write_text(
        'preset = "standard"\nseed = 0\n[training]\nepochs = 200\nlearning_rate = 0.001\n'
        "betas = [0.9, 0.999]\naugment = true\n[model]\nname = 'spectral_mamba'\nstates = 16\n"
    )
    _write_spectra(folder, classes, example, rng)
    _write_log(folder, rng)
    _write_model(folder)
    return folder


def _name(index: int) -> str:
    return NAMES[index] if index < len(NAMES) else f"class number {index + 1}"


def _color(index: int) -> str:
    return COLORS[index] if index < len(COLORS) else "#" + format((index * 2654435761) & 0xFFFFFF, "06x")


def _fields(example: Example, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[: example.height, : example.width]
    centres = rng.random((4 * len(ids), 2)) * (example.height, example.width)
    nearest = np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in centres], axis=0)
    truth = ids[nearest % len(ids)]
    return truth, rows + columns < min(example.height, example.width) // 5


def _roles(example: Example, truth: np.ndarray, nodata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    role = np.full(truth.shape, 2, dtype=np.uint8)
    if example.method == "random":
        role[rng.random(truth.shape) < 0.02] = 1
    else:
        role[:, : example.width // 3] = 1
        role[:, example.width // 3 : example.width // 3 + 5] = 0
    role[(np.arange(example.height) % 20 > 15)[:, None] | nodata] = 0
    return role


def _record(example: Example, role: np.ndarray, reference: np.ndarray, ids: np.ndarray) -> dict:
    leaking = 1234 if example.method == "random" else 0
    test = int((role == 2).sum())
    return {
        "method": example.method,
        "parameters": {"per_class": 10} if example.method == "random" else {"block": 20, "gap": 5},
        "seed": example.seed,
        "patch": example.patch,
        "classes": {
            str(id): {
                side: int(((role == code) & (reference == id)).sum()) for side, code in (("train", 1), ("test", 2))
            }
            for id in ids
        },
        "train_pixels": int((role == 1).sum()),
        "test_pixels": test,
        "distance": {
            "unit": "pixels",
            "minimum": 1.0 if leaking else 5.0,
            "median": 4.2,
            "bin_edges": [0, 1, 2, 3, 5, 10, 20, 50, None],
            "histogram": [0, 700, 1100, 900, 300, 50, 4, 0],
        },
        "leaks": {"test_near_training": leaking, "training_near_test": leaking // 15, "share_of_test": leaking / test},
        "notes": ["class 50 has 3 labels: 1 for training, 2 for testing"],
    }


def _write_rasters(folder, role, reference, predicted, record, rng) -> None:
    height, width = role.shape
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 5e5, 0, -10, 5e6), "height": height, "width": width}
    with rasterio.open(folder / "split.tif", "w", driver="GTiff", count=2, dtype="int32", **place) as file:
        file.write(np.stack([role, reference]).astype(np.int32))
        file.update_tags(SPLIT_RECORD=json.dumps(record))
    with rasterio.open(folder / "map.tif", "w", driver="GTiff", count=1, dtype="uint8", nodata=0, **place) as file:
        file.write(predicted.astype(np.uint8), 1)
    confidence = np.where(predicted == 0, np.nan, 1 - rng.beta(1, 8, predicted.shape))
    with rasterio.open(folder / "map_confidence.tif", "w", driver="GTiff", count=1, dtype="float32", **place) as file:
        file.write(confidence.astype(np.float32), 1)
    novelty = np.where(predicted == 0, np.nan, rng.random(predicted.shape))
    with rasterio.open(folder / "map_novelty.tif", "w", driver="GTiff", count=1, dtype="float32", **place) as file:
        file.write(novelty.astype(np.float32), 1)
    rows, columns = np.indices(predicted.shape)
    sizes = np.where(predicted == 0, 255, (rows + columns) % 5)
    with rasterio.open(
        folder / "map_set_size.tif", "w", driver="GTiff", count=1, dtype="uint8", nodata=255, **place
    ) as file:
        file.write(sizes.astype(np.uint8), 1)
    grey = (predicted * 20 + rng.integers(0, 30, predicted.shape)) % 255
    overview = np.stack([grey, (grey * 3) % 255, 255 - grey, np.where(predicted == 0, 0, 255)]).astype(np.uint8)
    with rasterio.open(folder / "overview.tif", "w", driver="GTiff", count=4, dtype="uint8", **place) as file:
        file.write(overview)


def _scores(classes, reference, predicted, record, example: Example) -> dict:
    ids = [entry["id"] for entry in classes]
    confusion = [[int(((reference == row) & (predicted == column)).sum()) for column in ids] for row in ids]
    overall = float(np.trace(confusion) / np.sum(confusion))
    per_class = []
    for index, entry in enumerate(classes):
        row, column, right = sum(confusion[index]), sum(line[index] for line in confusion), confusion[index][index]
        per_class.append(
            {
                **entry,
                "reference": row,
                "predicted": column,
                "precision": right / column if column else None,
                "recall": right / row if row else None,
                "f1": 2 * right / (row + column) if row + column else None,
                "precision_interval": [right / column - 0.02, min(1, right / column + 0.02)] if column else None,
                "recall_interval": [right / row - 0.03, min(1, right / row + 0.03)] if row else None,
            }
        )
    return {
        "overall_accuracy": overall,
        "average_accuracy": overall - 0.01,
        "kappa": overall - 0.02,
        "macro_f1": None if example.classes == 60 else overall - 0.015,
        "intervals": {
            "level": 0.95,
            "overall_accuracy": [overall - 0.01, overall + 0.01],
            "average_accuracy": [overall - 0.03, overall + 0.01],
            "kappa": [overall - 0.04, overall],
            "method": {"overall_accuracy": "Wilson", "average_accuracy": "delta method", "kappa": "delta method"},
        },
        "per_class": per_class,
        "classes": classes,
        "confusion": confusion,
        "test_pixels": int(np.sum(confusion)),
        "unclassified": 0,
        "novelty": {"level": 0.99, "share_of_test": 0.123},
        "prediction_sets": _prediction_sets(classes),
        "split": record,
        "versions": {"spectralmamba": "0.1.0", "torch": "2.9.0", "python": "3.11.7"},
        "seconds": {"train": 83.4, "map": 2.31},
        "peak_memory_bytes": 734003200,
        "model": {
            "name": "spectral_mamba",
            "preset": "standard",
            "patch": example.patch,
            "parameters": 142331,
            "multiply_accumulates": 21000123,
        },
        "scene": {
            "file": "scenes/valley.tif",
            "shape": [example.bands, example.height, example.width],
            "crs": "EPSG:32632",
        },
    }


def _prediction_sets(classes) -> dict:
    sizes = {"pixels": 900, "mean_size": 1.234, "share_empty": 0.05, "share_single": 0.75}
    return {
        "coverage": 0.9,
        "threshold": 0.0125,
        "labels": 180,
        "left_out": "neighbouring labels together",
        "of_test": {
            "held": 0.9123,
            "interval": [0.89, 0.93],
            **sizes,
            "per_class": [  # the last class has no test pixel
                {"id": entry["id"], "name": entry["name"], "held": 0.875, "interval": [0.8, 0.925], **sizes}
                for entry in classes[:-1]
            ],
        },
        "of_map": sizes,
    }


def _write_spectra(folder, classes, example: Example, rng) -> None:
    wavelength = np.linspace(400, 2500, example.bands)
    good = ~((wavelength > 1350) & (wavelength < 1450) | (wavelength > 1800) & (wavelength < 1950))
    entries = []
    for index, entry in enumerate(classes):
        mean = 0.2 + 0.05 * index * np.sin(wavelength / 300 + index) ** 2 + wavelength / 2e4
        entries.append(
            {
                **entry,
                "pixels": 20 + index,
                "mean": [float(value) if ok else None for value, ok in zip(mean, good, strict=True)],
                "sd": (0.02 + 0.01 * rng.random(example.bands)).tolist(),
            }
        )
    content = {"wavelength": wavelength.tolist(), "good": good.tolist(), "classes": entries}
    (folder / "spectra.json").write_text(json.dumps(content))


def _write_log(folder: Path, rng) -> None:
    lines = [
        {
            "step": step,
            "loss": 1.6 * float(np.exp(-step / 300)) * float(rng.uniform(0.6, 1.4)) + 0.002,
            "accuracy": min(1.0, 1 - 0.7 * float(np.exp(-step / 200)) + float(rng.normal(0, 0.02))),
            "learning_rate": 1e-3,
            "seconds": step * 0.05,
        }
        for step in range(0, 2000, 10)
    ]
    (folder / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + '\n{"step": 2000, "lo')


def _write_model(folder: Path) -> None:
    card = json.dumps({"format": 1, "bands": list(range(120)), "classes": {"10": HOSTILE}})
    header = json.dumps({"__metadata__": {"card": card}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def make_seeds(folder: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    scores = []
    for seed in seeds:
        make_run(folder / f"seed-{seed}", Example(seed=seed))
        scores.append(json.loads((folder / f"seed-{seed}" / "scores.json").read_text()))
    summary = {
        key: _over_seeds([score[key] for score in scores]) for key in ("overall_accuracy", "average_accuracy", "kappa")
    }
    summary["macro_f1"] = {"mean": None, "sd": None, "values": [None] * len(seeds)}
    per_class = [
        {
            **{key: entry[key] for key in ("id", "name", "color")},
            "recall": _over_seeds([score["per_class"][index]["recall"] for score in scores]),
        }
        for index, entry in enumerate(scores[0]["per_class"])
    ]
    (folder / "summary.json").write_text(json.dumps({"seeds": list(seeds), **summary, "per_class": per_class}))
    return folder


def _over_seeds(values: list[float]) -> dict:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values)), "values": values}
