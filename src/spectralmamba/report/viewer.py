"""The viewer of one run: a page with the map, and what there is to say of each pixel."""

from __future__ import annotations

import base64
import csv
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from rasterio.windows import Window

from spectralmamba import files
from spectralmamba.report import words
from spectralmamba.report.folder import STRIP_ROWS, MappedClass, RunFolder, damaged, open_raster
from spectralmamba.report.pixel_files import Explanations, PixelValues, every_nth, find_step, share_levels
from spectralmamba.report.templates import asset, render
from spectralmamba.splits import TEST, TRAINING
from spectralmamba.splits.distances import within_reach

LEAK = 4
"""Added to the role of a test pixel whose patch holds a training pixel."""
DIGITS = 5  # of numbers that are drawn and not read


@dataclass(frozen=True)
class LegendRow:
    """A class of the map with what is known of it; None where that is not known."""

    owner: MappedClass
    pixels: int
    share: float | None
    hectares: float | None
    recall: Any
    test_pixels: Any


def write_viewer(run: RunFolder) -> Path:
    """Write `viewer.html` into a run's folder: one page that holds all its data, and asks for nothing from elsewhere.

    Of a large scene it shows every n-th row and column, so that the page stays below 15 MB.

    Raises:
        OutputError: A file of the folder is damaged or of another scene, or the page cannot be written.
    """
    pixels = PixelValues.load(run.path / "pixels.npz", run.shape) if run.has("pixels.npz") else None
    why = Explanations.load(run.path / "why.npz", run.shape) if run.has("why.npz") else None
    step = find_step(run.shape, 0, 0) if pixels is None else pixels.step
    style, script = Markup("\n").join((asset("page.css"), asset("viewer.css"))), asset("viewer.js")
    path = run.path / "viewer.html"
    legend = _legend(run)
    page = render(
        "viewer.html",
        title=run.title,
        subtitle=_subtitle(run),
        style=style,
        script=script,
        policy=_policy(style, script),
        facts=_facts(run, [row.owner for row in legend], step, pixels, why),
        layers={name: _text(values) for name, values in _layers(run, step, pixels).items()},
        legend=legend,
        hectares=any(row.hectares is not None for row in legend),
        thinned=words.every(step) if step > 1 else "",
        leaks=(run.record.get("leaks") or {}).get("test_near_training"),
        neighbourhood=words.neighbourhood(run.record.get("patch")),
        has_picture=run.has("overview.tif"),
        has_spectra=pixels is not None,
        explained=0 if why is None else len(why.rows),
        has_gates=why is not None and why.gates.shape[-1] > 1,
    )
    files.write_text(path, page)
    return path


def _subtitle(run: RunFolder) -> str:
    tested = words.counted(run.scores.get("test_pixels"), "test pixel")
    return " · ".join(
        (
            f"{words.count(run.shape[0])} rows × {words.count(run.shape[1])} columns",
            words.counted(len(run.classes), "class", "classes"),
            f"{words.percent(run.scores['overall_accuracy'])} of {tested} right",
        )
    )


def _facts(
    run: RunFolder, classes: list[MappedClass], step: int, pixels: PixelValues | None, why: Explanations | None
) -> dict[str, Any]:
    """What the script needs besides the layers, ready for JSON."""
    height, width = every_nth(run.shape, step)
    transform, crs = _place(run.path / "map.tif")
    return {
        "rows": run.shape[0],
        "columns": run.shape[1],
        "step": step,
        "height": height,
        "width": width,
        "transform": transform,
        "crs": crs,
        "patch": run.record.get("patch"),
        "classes": [asdict(each) for each in classes],
        "bands": None
        if pixels is None
        else {
            "used": pixels.bands.tolist(),
            "wavelength": files.numbers_or_none(pixels.wavelength),
            "offset": pixels.offset.tolist(),
            "scale": pixels.scale.tolist(),
        },
        "probable": [] if pixels is None else pixels.classes.tolist(),
        "means": _means(run),
        "why": None if why is None or not len(why.rows) else _why(why, run.shape),
    }


def _means(run: RunFolder) -> dict[str, Any]:
    """Mean and standard deviation of the classes' training pixels, by id."""
    entries = (run.spectra or {}).get("classes") or []
    return {
        str(entry["id"]): {name: _shortened(entry[name]) for name in ("mean", "sd")}
        for entry in entries
        if isinstance(entry.get("mean"), list) and isinstance(entry.get("sd"), list)
    }


def _why(why: Explanations, shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "rows": why.rows.tolist(),
        "columns": why.columns.tolist(),
        "classes": why.classes.tolist(),
        "first": why.first.tolist(),
        "last": why.last.tolist(),
        "effects": [_shortened(row) for row in why.effects.tolist()],
        "gates": [_shortened(row) for row in why.gates.reshape(len(why.gates), -1).tolist()],
        "patch": why.gates.shape[-1],
    }


def _shortened(values: list[Any]) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if words.is_number(value) else None for value in values]


def _layers(run: RunFolder, step: int, pixels: PixelValues | None) -> dict[str, NDArray[Any]]:
    """Values of every n-th pixel, `(h, w)` or `(h, w, …)`, by name."""
    role, reference = _read_every(run.path / "split.tif", step, 1), _read_every(run.path / "split.tif", step, 2)
    role = np.where(np.isin(role, (TRAINING, TEST)), role, 0).astype(np.uint8)
    role[(role == TEST) & _near_training(run)[::step, ::step]] += LEAK
    layers: dict[str, NDArray[Any]] = {
        "class": _read_every(run.path / "map.tif", step, 1).astype(np.uint16),
        "reference": reference.astype(np.uint16),
        "role": role,
    }
    if run.has("map_confidence.tif"):
        confidence = _read_every(run.path / "map_confidence.tif", step, 1)
        _check_grid(run, "map_confidence.tif", confidence, step)
        layers["confidence"] = share_levels(confidence.astype(np.float64))
    if run.has("overview.tif"):
        layers["picture"] = _picture(run, step)
    if pixels is not None:
        layers |= {"spectra": pixels.levels, "probabilities": pixels.probabilities}
    return layers


def _check_grid(run: RunFolder, name: str, values: NDArray[Any], step: int) -> None:
    expected = every_nth(run.shape, step)
    if values.shape != expected:
        raise damaged(run.path / name, "a raster of another size", f"{run.shape[0]} × {run.shape[1]} pixels")


def _near_training(run: RunFolder) -> NDArray[np.bool_]:
    """Pixels whose patch holds a training pixel; none if the record does not say how wide it is."""
    training, survey, patch = np.zeros(run.shape, bool), run.survey, run.record.get("patch")
    if not words.is_number(patch):
        return training
    chosen = survey.role == TRAINING
    training[survey.rows[chosen], survey.columns[chosen]] = True
    return within_reach(training, int(patch) // 2)


def _picture(run: RunFolder, step: int) -> NDArray[np.uint8]:
    """Red, green, blue and alpha of the false-colour picture, `(h, w, 4)`, which may be coarser than the scene."""
    with open_raster(run.path / "overview.tif") as dataset:
        bands = dataset.read().astype(np.uint8)
    coarser = math.ceil(run.shape[0] / bands.shape[1])
    if every_nth(run.shape, coarser) != bands.shape[1:]:
        found = f"{bands.shape[1]} × {bands.shape[2]} pixels"
        raise damaged(run.path / "overview.tif", found, f"every n-th of {run.shape[0]} × {run.shape[1]} pixels")
    rows, columns = (np.arange(0, size, step) // coarser for size in run.shape)
    shown = bands[:, rows[:, None], columns]
    colors = shown[:3] if len(shown) > 2 else np.repeat(shown[:1], 3, axis=0)
    alpha = shown[-1:] if len(shown) in (2, 4) else np.full_like(shown[:1], 255)
    return np.moveaxis(np.concatenate([colors, alpha]), 0, -1)


def _read_every(path: Path, step: int, band: int) -> NDArray[Any]:
    """Every n-th row and column of a raster's band, from the first."""
    strips = []
    with open_raster(path) as dataset:
        height, width = dataset.shape
        for top in range(0, height, STRIP_ROWS):
            window = Window(0, top, width, min(STRIP_ROWS, height - top))  # pyright: ignore[reportCallIssue]
            strips.append(dataset.read(band, window=window)[-top % step :: step, ::step])
    return np.concatenate(strips)


def _place(path: Path) -> tuple[list[float] | None, str | None]:
    """The six coefficients of a raster's grid, None if it has none, and the name of its coordinate system."""
    with open_raster(path) as dataset:
        transform = None if dataset.transform.is_identity else list(dataset.transform)[:6]
        return transform, None if dataset.crs is None else dataset.crs.to_string()


def _legend(run: RunFolder) -> list[LegendRow]:
    mapped, hectares = run.survey.mapped, _hectares(run)
    total = sum(count for id, count in mapped.items() if id != 0)
    scores: dict[int, Mapping[str, Any]] = {int(entry["id"]): entry for entry in run.scores["per_class"]}
    ids = [*run.classes, *sorted(id for id in mapped if id != 0 and id not in run.classes)]
    return [
        LegendRow(
            run.class_of(id),
            mapped[id],
            mapped[id] / total if total else None,
            hectares.get(id),
            scores.get(id, {}).get("recall"),
            scores.get(id, {}).get("reference"),
        )
        for id in ids
    ]


def _hectares(run: RunFolder) -> dict[int, float]:
    """Hectares of the mapped classes by id, those that the map's table of areas holds."""
    path = run.path / "map_areas.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {int(row["id"]): float(row["mapped_hectares"]) for row in rows if row["mapped_hectares"]}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise damaged(path, f"{type(error).__name__}: {error}", "a table with id and mapped_hectares") from error


def _text(values: NDArray[Any]) -> str:
    """Little-endian values as base64."""
    return base64.b64encode(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def _policy(style: str, script: str) -> str:
    """The content security policy: the page's own style and script, and nothing else."""
    own = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    """What a content security policy calls a style sheet or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
