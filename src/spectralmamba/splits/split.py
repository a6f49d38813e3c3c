"""The split itself: two masks, the training side and their record; saved, loaded and told in words."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import MemoryFile

from spectralmamba.errors import SplitError
from spectralmamba.files import atomic_output
from spectralmamba.scenes.raster_files import opened_raster
from spectralmamba.splits.checks import check_patch, refuse_empty_side, refuse_overlap
from spectralmamba.splits.distances import count_leaks
from spectralmamba.splits.labelled import LabelImage, Mask, class_ids

TRAINING, TEST = 1, 2
"""Values of the first band of split.tif; 0 is unused."""

_RECORD_TAG = "SPLIT_RECORD"
_BAND_DESCRIPTIONS = ("role: 0 unused, 1 training, 2 test", "reference class id", "training side: 0 no, 1 yes")


@dataclass(frozen=True, eq=False)
class Split:
    """Which pixels train and which test.

    Attributes:
        train: `(H, W)` bool, labelled pixels that the network learns from.
        test: `(H, W)` bool, labelled pixels that the scores are computed from.
        training_side: `(H, W)` bool, pixels, labelled or not, from which unsupervised statistics may be learned.
        record: What docs/architecture.md calls the record, ready for JSON.

    Raises:
        SplitError: The masks differ in shape, overlap, or one of `train` and `test` is empty.
    """

    train: Mask
    test: Mask
    training_side: Mask
    record: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.train.shape == self.test.shape == self.training_side.shape:
            raise SplitError(
                "training mask, test mask and training side differ in shape",
                found=f"{self.train.shape}, {self.test.shape} and {self.training_side.shape}",
                expected="one shape",
            )
        refuse_overlap(self.train, self.test)
        refuse_empty_side(self.train, self.test, "Label more pixels, or divide them in another way.")

    def with_patch(self, patch: int) -> Split:
        """The same pixels, their leaks counted for patches of `patch` × `patch` pixels.

        The distances in the record are between pixels and stay as they are. A buffer is not redrawn: a disjoint split
        made for a smaller patch may leak with a larger one, and the record then says how much.

        Raises:
            SplitError: `patch` is not an odd number of at least 1.
        """
        check_patch(patch)
        record = json.loads(json.dumps(self.record))
        record["patch"] = int(patch)
        record["leaks"] = count_leaks(self.train, self.test, patch)
        return Split(self.train, self.test, self.training_side, record)

    def summary(self) -> str:
        """A few plain lines for people: method, counts, distance, leaks."""
        return record_in_words(self.record)

    def save(self, path: str | os.PathLike[str], labels: LabelImage) -> None:
        """Write the split as a GeoTIFF that holds everything to repeat it.

        Band 1 is the role (0 unused, 1 training, 2 test), band 2 the class id, band 3 the training side; all uint16.
        The record is the dataset's tag `SPLIT_RECORD` (JSON). CRS and transform are those of `labels`, where it has
        them.

        Args:
            path: The file, replaced atomically.
            labels: `(H, W)` class ids, 0 unlabelled.

        Raises:
            SplitError: `labels` has another shape, or an id above 65535.
            LabelError: `labels` are not class ids.
            OutputError: The file cannot be written.
        """
        ids = class_ids(labels)
        if ids.shape != self.train.shape:
            raise SplitError("labels and split differ in shape", found=ids.shape, expected=self.train.shape)
        if ids.max() > np.iinfo(np.uint16).max:
            raise SplitError(
                "a class id is too large for split.tif",
                file=path,
                found=int(ids.max()),
                expected=f"at most {np.iinfo(np.uint16).max}",
                remedy="Renumber the classes.",
            )
        roles = np.where(self.train, TRAINING, np.where(self.test, TEST, 0))
        bands = np.stack([roles, ids, self.training_side]).astype(np.uint16)
        with atomic_output(path) as temporary:
            temporary.write_bytes(_encode_geotiff(bands, self.record, _georeference(labels)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[Split, NDArray[np.int32]]:
        """Read what `save` wrote.

        Returns:
            The split and the `(H, W)` int32 class ids.

        Raises:
            SplitError: The file is missing, no GeoTIFF, or not a split.
        """
        expected = f"a GeoTIFF of three bands with a tag {_RECORD_TAG}, as training writes it"
        try:
            with opened_raster(path) as file:
                record, bands = json.loads(file.tags()[_RECORD_TAG]), file.read()
            roles, ids, side = bands
        except RasterioIOError as error:
            raise SplitError("cannot read the split", file=path, found=str(error), expected=expected) from error
        except (KeyError, ValueError) as error:
            raise SplitError("this file is not a split", file=path, expected=expected) from error
        return cls(roles == TRAINING, roles == TEST, side > 0, record), ids.astype(np.int32)


def record_in_words(record: dict[str, Any]) -> str:
    """Return a few plain lines for people about a split's record: method, counts, distance, leaks."""
    patch, distance, leaks = record["patch"], record["distance"], record["leaks"]
    seed = "" if record["seed"] is None else f", seed {record['seed']}"
    lines = [
        f"Split: {_method_in_words(record)}{seed}.",
        f"{record['train_pixels']} training and {record['test_pixels']} test pixels"
        + (f" of {len(record['classes'])} classes." if record["classes"] else "."),
        *_fields_in_words(record.get("fields", {})),
        f"From a test pixel to the nearest training pixel: at least {distance['minimum']:.1f} pixels, "
        f"median {distance['median']:.1f}.",
    ]
    if leaks["test_near_training"]:
        lines.append(
            f"Leaks: {leaks['test_near_training']} test pixels ({leaks['share_of_test']:.1%}) have a training "
            f"pixel in their {patch} × {patch} patch, {leaks['training_near_test']} training pixels a test pixel "
            "in theirs."
        )
    else:
        lines.append(f"Leaks: none; no {patch} × {patch} patch of a test pixel holds a training pixel.")
    return "\n".join(lines + [f"Note: {note}." for note in record["notes"]])


def _method_in_words(record: dict[str, Any]) -> str:
    parameters = record["parameters"]
    words = {
        "random": lambda: (
            f"{parameters['per_class']} random pixels of each class"
            if "per_class" in parameters
            else f"{parameters['fraction']:.3g} of each class, at random"
        ),
        "masks": lambda: "fixed masks",
        "blocks": lambda: f"spatially disjoint blocks of {parameters['block_size']} pixels",
        "regions": lambda: "spatially disjoint, each region of a class on one side",
        "fields": lambda: "each polygon or point on one side",
        "columns": lambda: f"spatially disjoint, columns before {parameters['boundary']} train, the others test",
        "rows": lambda: f"spatially disjoint, rows before {parameters['boundary']} train, the others test",
    }
    method = words[record["method"]]() if record["method"] in words else record["method"]
    if "buffer" in parameters:
        method += f", buffer {parameters['buffer']} pixels"
        method += f", {parameters['per_class']} training pixels of each class" if "per_class" in parameters else ""
    return method


def _fields_in_words(fields: dict[str, dict[str, int]]) -> list[str]:
    if not fields:
        return []
    train, test = (sum(count[side] for count in fields.values()) for side in ("train", "test"))
    listed = ", ".join(f"class {id_}: {count['train']} and {count['test']}" for id_, count in fields.items())
    return [f"{train} fields train and {test} test ({listed})."]


def _georeference(labels: LabelImage) -> dict[str, Any]:
    if not isinstance(labels, xr.DataArray) or not {"y", "x"} <= set(labels.dims):
        return {}
    georeference = {"crs": labels.rio.crs, "transform": labels.rio.transform()}
    if georeference["transform"].is_identity:
        del georeference["transform"]
    return {key: value for key, value in georeference.items() if value is not None}


def _encode_geotiff(bands: NDArray[np.uint16], record: dict[str, Any], georeference: dict[str, Any]) -> bytes:
    count, height, width = bands.shape
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype="uint16", compress="deflate", **georeference
        ) as file:
            file.write(bands)
            file.update_tags(**{_RECORD_TAG: json.dumps(record, allow_nan=False)})
            for band, description in enumerate(_BAND_DESCRIPTIONS, start=1):
                file.set_band_description(band, description)
        return bytes(memory.getbuffer())
