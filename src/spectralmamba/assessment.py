"""A map and a reference sample, from their files to class areas and accuracies."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from numpy.typing import NDArray
from rasterio.crs import CRS

from spectralmamba.areas import LEVEL, AreaEstimates, estimate_areas
from spectralmamba.errors import LabelError, OutputError
from spectralmamba.files import write_json, write_text
from spectralmamba.scenes.class_rasters import ClassRaster, read_class_raster
from spectralmamba.scenes.class_tables import ClassTable
from spectralmamba.scenes.labels import open_labels
from spectralmamba.scenes.merging import Merge
from spectralmamba.scenes.pixel_areas import pixel_areas
from spectralmamba.scenes.tables import burn_table
from spectralmamba.scenes.vectors import is_vector

HECTARE = 10_000.0  # m²
NOTABLE_SPREAD = 0.01  # of pixel areas: below, equal pixels and equal areas are the same sample for all purposes
DESIGN = (
    "The reference is taken to be a random sample of pixels drawn within each mapped class; of any other sample, training "
    "labels above all, these numbers say nothing."
)


@dataclass(frozen=True)
class Assessment:
    """What a reference sample says of a map.

    Attributes:
        estimates: Accuracies and areas, in hectares, or in pixels where the map has no CRS.
        notes: What the user should know, sentences.
        left_out: Counts of samples that were not used, by reason.
    """

    estimates: AreaEstimates
    notes: list[str]
    left_out: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return self.estimates.to_dict() | {"notes": self.notes, "left_out": self.left_out}

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON, or its table of classes as CSV, by the file's suffix, and return the path.

        Raises:
            OutputError: The suffix is another, or the file cannot be written.
        """
        path = check_assessment_file(path)
        if path.suffix.lower() == ".json":
            write_json(path, self.to_dict())
        else:
            write_text(path, _as_csv(self.estimates))
        return path


def check_assessment_file(path: str | os.PathLike[str]) -> Path:
    """Return the path if an assessment can be written in the format of its suffix; OutputError if not."""
    path = Path(path)
    if path.suffix.lower() not in (".json", ".csv"):
        raise OutputError(
            "areas are not written in this format", file=path, expected="a name that ends with .json or .csv"
        )
    return path


def assess(
    map_file: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    *,
    variable: str | None = None,
    column: str | None = None,
    layer: str | None = None,
    all_touched: bool = False,
    shrink: float = 0.0,
    point_radius: float = 0.0,
    classes: str | os.PathLike[str] | ClassTable | None = None,
    merge: Merge | None = None,
    drop: Sequence[str | int] = (),
    level: float = LEVEL,
) -> Assessment:
    """Estimate accuracies and class areas of a map from a reference sample that is stratified by its classes.

    A pixel is a sampled unit, whatever lies in it; one that is given two classes is left out and counted. Classes given as text
    are those of that name on the map.

    Args:
        map_file: Class raster, 0 or nodata where nothing is mapped.
        reference: Class raster on the map's grid, points or polygons; or a CSV table with a column of classes and the columns
            `x` and `y` (the map's CRS), `longitude` and `latitude` (WGS 84), or `column` and `row` (counted from 0).
        variable: Variable of a .mat file of reference labels.
        column: Column of the class in a vector file or table.
        layer: Layer of a vector file.
        all_touched: As `open_labels` takes it, for polygons.
        shrink: As `open_labels` takes it, for polygons.
        point_radius: As `open_labels` takes it, for points of a vector file.
        classes: Names of the reference's classes, as `open_labels` takes them.
        merge: Classes of the reference that become one, as `open_labels` takes them.
        drop: Classes of the reference that are left out.
        level: Confidence level of the intervals.

    Raises:
        LabelError: A file cannot be read, the two do not fit, or a mapped class has fewer than two samples.
        MissingPackageError: The format needs an optional package.
    """
    mapped = read_class_raster(Path(map_file))
    names = {id_: name for id_, name in mapped.names.items() if id_ > 0}
    options = {"variable": variable, "column": column, "layer": layer, "all_touched": all_touched, "shrink": shrink}
    options |= {"point_radius": point_radius, "classes": classes, "merge": merge, "drop": drop}
    ids, left_out, notes = _read_reference(reference, mapped, names, options)
    sizes, unit, of_pixels = _mapped_areas(mapped)
    unmapped = (ids > 0) & (mapped.ids == 0)
    used = (ids > 0) & (mapped.ids > 0)
    present = sorted({*sizes, *np.unique(ids[used]).tolist()})
    position = np.searchsorted(present, mapped.ids[used]) * len(present) + np.searchsorted(present, ids[used])
    counts = np.bincount(position, minlength=len(present) ** 2).reshape(len(present), -1)
    described = [{"id": id_, "name": names.get(id_), "color": mapped.colors.get(id_)} for id_ in present]
    estimates = estimate_areas(
        counts, [sizes.get(id_, 0.0) for id_ in present], classes=described, unit=unit, level=level
    )
    left_out = left_out | {"where_nothing_is_mapped": int(unmapped.sum())}
    return Assessment(estimates, [DESIGN, *of_pixels, *notes], left_out)


def _read_reference(
    reference: str | os.PathLike[str], mapped: ClassRaster, names: dict[int, str], options: dict[str, Any]
) -> tuple[NDArray[np.int64], dict[str, int], list[str]]:
    """The reference as the map's ids `(H, W)`, what was left out of it, and notes; new names are added to `names`."""
    path = Path(reference)
    if path.suffix.lower() == ".csv":
        if options["variable"] is not None or options["layer"] is not None:
            raise LabelError("a table has neither variables nor layers", file=path, remedy="Leave the option out.")
        given = [
            name for name in ("all_touched", "shrink", "point_radius", "classes", "merge", "drop") if options[name]
        ]
        if given:
            raise LabelError(
                "a reference table is taken as it is",
                file=path,
                found=" and ".join(given).replace("_", " "),
                remedy="Leave the option out, or give the samples as points (GeoPackage).",
            )
        points = burn_table(path, mapped, options["column"])
        return _by_name(path, points.ids, points.names, mapped, names), points.report, points.notes
    labels = open_labels(reference, _grid(mapped), **options)
    report = {name: count for name, count in labels.attrs["report"].items() if name != "on_nodata"}
    given = {id_: name for id_, name in labels.attrs["class_names"].items() if name != f"class {id_}"}
    if is_vector(reference):
        return _by_name(path, labels.values, given, mapped, names), report, labels.attrs["notes"]
    names |= {id_: name for id_, name in given.items() if id_ not in names}
    return labels.values.astype(np.int64), report, labels.attrs["notes"]


def _grid(mapped: ClassRaster) -> xr.DataArray:
    """What `open_labels` asks of a scene, every pixel valid; it takes no memory."""
    values = np.broadcast_to(np.float32(0), (1, *mapped.ids.shape))
    grid = xr.DataArray(values, dims=("band", "y", "x"), coords={"good": ("band", [True])}, attrs={"source": "the map"})
    if mapped.transform is not None:
        grid = grid.rio.write_transform(mapped.transform)
    return grid if mapped.crs is None else grid.rio.write_crs(mapped.crs)


def _mapped_areas(mapped: ClassRaster) -> tuple[dict[int, float], str, list[str]]:
    """Area of each mapped class, its unit, and what there is to say of it."""
    if not mapped.ids.any():
        raise LabelError("the map is empty", found="no pixel with a class")
    if mapped.crs is None or mapped.transform is None:
        ids, counts = np.unique(mapped.ids[mapped.ids > 0], return_counts=True)
        note = "The map has no CRS, so areas are pixels."
        return dict(zip(ids.tolist(), counts.astype(float).tolist(), strict=True)), "pixels", [note]
    of_rows = pixel_areas(mapped.transform, mapped.crs, len(mapped.ids)) / HECTARE
    sizes = np.zeros(int(mapped.ids.max()) + 1)
    for row, area in zip(mapped.ids, of_rows.tolist(), strict=True):
        counts = np.bincount(row)
        sizes[: len(counts)] += area * counts
    present = {int(id_): float(sizes[id_]) for id_ in np.flatnonzero(sizes) if id_ > 0}
    return present, "hectares", _notes_on_pixels(mapped.crs, of_rows)


def _notes_on_pixels(crs: CRS, of_rows: NDArray[np.float64]) -> list[str]:
    if not crs.is_geographic:
        return [f"Pixels are measured in the map's projection ({crs.to_string()}), at its scale."]
    spread = float(of_rows.max() / of_rows.min() - 1) if of_rows.min() > 0 else math.inf
    notes = [f"The map is in degrees: pixels are measured row by row on the ellipsoid of {crs.to_string()}."]
    if spread > NOTABLE_SPREAD:
        notes.append(
            f"The largest pixels are {spread:.1%} larger than the smallest, yet each sampled pixel counts the same within its "
            "class; an equal-area map has no such doubt."
        )
    return notes


def _by_name(
    path: Path, ids: NDArray[Any], given: Mapping[int, str], mapped: ClassRaster, names: dict[int, str]
) -> NDArray[np.int64]:
    """Ids as the map's, by the names they were given; a name that the map does not know gets a new id and is added to `names`."""
    if given and not names:
        raise LabelError(
            "the reference names its classes, but the map does not",
            file=path,
            found=", ".join(given.values()),
            remedy="Give the classes as the map's numbers.",
        )
    known = {name.strip().lower(): id_ for id_, name in names.items()}
    table = np.arange(max(int(ids.max()), *given, 0) + 1)
    highest = max(int(mapped.ids.max()), *names, 0)
    for id_, name in given.items():
        key = name.strip().lower()
        if key not in known:
            known[key] = highest = highest + 1
            names[highest] = name
        table[id_] = known[key]
    return table[ids]


def _as_csv(estimates: AreaEstimates) -> str:
    """A line for each class, and one for the whole map; numbers in full."""
    head = ["id", "class", "samples", f"mapped_{estimates.unit}"]
    measures = (f"area_{estimates.unit}", "users_accuracy", "producers_accuracy")
    head += [f"{measure}{part}" for measure in measures for part in ("", "_se", "_plus_minus")]
    lines: list[list[Any]] = [head]
    for k, entry in enumerate(estimates.classes):
        cells: list[Any] = [entry["id"], entry["name"], int(estimates.counts[k].sum()), estimates.mapped[k]]
        for one in (estimates.areas[k], estimates.users_accuracy[k], estimates.producers_accuracy[k]):
            cells += [one.value, one.standard_error, one.half_width]
        lines.append(cells)
    whole = estimates.overall_accuracy
    lines.append(["", "overall accuracy", int(estimates.counts.sum()), estimates.mapped.sum(), "", "", ""])
    lines[-1] += [whole.value, whole.standard_error, whole.half_width, "", "", ""]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)  # None is an empty cell
    return text.getvalue()
