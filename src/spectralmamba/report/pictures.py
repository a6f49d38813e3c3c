"""The report's rasters, as PNG inside the page."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window
from scipy import ndimage

from spectralmamba.report import words
from spectralmamba.report.folder import STRIP_ROWS, RunFolder, open_raster
from spectralmamba.scenes.palette import CIVIDIS, SET_COLORS, SET_MEANINGS
from spectralmamba.scenes.png import png_bytes
from spectralmamba.splits import TEST, TRAINING

LONGEST_SIDE = 1200  # pixels: more than any column of the page shows
LARGEST_ZOOM = 8
OUTLINE = (0, 0, 0, 255)
HALO = (255, 255, 255, 255)
UNLABELLED = "#80808040"  # grey that lets a light and a dark page through
CORRECT, WRONG = "#0072b2", "#e69f00"  # Okabe & Ito (2008), told apart by all kinds of colour vision
TRAINING_GREY = "#808080d0"
SET_NODATA = 255
CONFIDENCE_STEPS = 64  # colours of the ramp: finer steps are not seen and make the PNG large


@dataclass(frozen=True)
class Ramp:
    """A colour bar: its colours and the values at its ends."""

    colors: tuple[str, ...]
    low: str
    high: str


@dataclass(frozen=True)
class Picture:
    """A picture with all that is written about it.

    Args:
        title: A few words above it.
        uri: The PNG as a data URI.
        width: Pixels of the PNG.
        height: Pixels of the PNG.
        alt: What it shows, with numbers.
        caption: A sentence below it.
        key: Colours and what they mean.
        ramp: The colour bar of a continuous quantity.
    """

    title: str
    uri: str
    width: int
    height: int
    alt: str
    caption: str
    key: tuple[tuple[str, str], ...] = ()
    ramp: Ramp | None = None

    @property
    def enlarged(self) -> bool:
        """Whether the page shows it larger than it is, pixel by pixel."""
        return max(self.width, self.height) < 600


@dataclass(frozen=True)
class Absent:
    """What stands where a picture would be."""

    title: str
    reason: str


def all_pictures(run: RunFolder) -> list[Picture | Absent]:
    """Scene, reference with the split, map, confidence and errors of a run, and novelty and set sizes where they were mapped."""
    novelty = [_novelty(run)] if run.has("map_novelty.tif") else []
    sets = [_set_sizes(run)] if run.has("map_set_size.tif") else []
    return [_scene(run), _reference(run), _map(run), _confidence(run), *novelty, *sets, _errors(run)]


def png_uri(picture: NDArray[np.uint8]) -> str:
    """A data URI of a PNG.

    Args:
        picture: uint8 `(H, W, 4)`, red, green, blue, alpha.
    """
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode("ascii")


def rgba(color: str) -> tuple[int, int, int, int]:
    """The channels of `#rrggbb` or `#rrggbbaa`."""
    channels = [int(color[at : at + 2], 16) for at in range(1, len(color), 2)]
    return channels[0], channels[1], channels[2], channels[3] if len(channels) == 4 else 255


def ramp_colors(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Cividis (Nuñez, Anderton & Renslow, 2018) between anchor colours; 0 is dark, 1 is bright, NaN is transparent.

    Args:
        share: float `(H, W)` in 0…1.

    Returns:
        uint8 `(H, W, 4)`.
    """
    anchors = np.array([rgba(color) for color in CIVIDIS], dtype=float)
    steps = np.linspace(0, len(CIVIDIS) - 1, CONFIDENCE_STEPS)
    table = np.stack([np.interp(steps, range(len(CIVIDIS)), anchors[:, channel]) for channel in range(4)], axis=1)
    valid = np.isfinite(share)
    level = np.rint(np.clip(np.where(valid, share, 0), 0, 1) * (CONFIDENCE_STEPS - 1)).astype(int)
    picture = np.rint(table[level]).astype(np.uint8)
    picture[~valid] = 0
    return picture


def reduction(shape: tuple[int, int]) -> int:
    """How many rows, and columns, of a raster become one of its picture."""
    return max(1, math.ceil(max(shape) / LONGEST_SIDE))


def reduced_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a raster's picture."""
    factor = reduction(shape)
    return math.ceil(shape[0] / factor), math.ceil(shape[1] / factor)


def _scene(run: RunFolder) -> Picture | Absent:
    title = "Scene"
    if not run.has("overview.tif"):
        return Absent(title, "The folder has no overview.tif, so there is no false-colour picture.")
    with open_raster(run.path / "overview.tif") as dataset:
        height, width = reduced_shape(dataset.shape)
        bands = dataset.read(out_shape=(dataset.count, height, width), resampling=Resampling.nearest).astype(np.uint8)
    picture = np.full((height, width, 4), 255, dtype=np.uint8)
    if len(bands) in (1, 2):
        picture[..., :3] = bands[0][..., None]
    else:
        picture[..., :3] = np.moveaxis(bands[:3], 0, -1)
    if len(bands) in (2, 4):
        picture[..., 3] = bands[-1]
    return Picture(
        title,
        png_uri(picture),
        width,
        height,
        alt=f"False-colour picture of the scene, {_size(run)}, {_nodata_share(run)} of it nodata.",
        caption=f"False colour, {_size(run)}.",
    )


def _size(run: RunFolder) -> str:
    return f"{words.count(run.shape[0])} rows by {words.count(run.shape[1])} columns"


def _nodata_share(run: RunFolder) -> str:
    return words.percent(run.survey.mapped[0] / (run.shape[0] * run.shape[1]), 1)


def _reference(run: RunFolder) -> Picture:
    survey, factor = run.survey, reduction(run.shape)
    picture = _background(run)
    training = np.zeros(picture.shape[:2], dtype=bool)
    for role in (TEST, TRAINING):
        chosen = survey.role == role
        at = survey.rows[chosen] // factor, survey.columns[chosen] // factor
        picture[at] = _class_colors(run, survey.reference[chosen])
        training[at] = role == TRAINING
    picture = _outlined(picture, training)
    trained, tested = _role_counts(run)
    return Picture(
        "Reference and split",
        png_uri(picture),
        picture.shape[1],
        picture.shape[0],
        alt=f"Reference labels of {words.counted(len(run.classes), 'class', 'classes')}: "
        f"{words.counted(trained, 'training pixel')}, outlined in black, and {words.counted(tested, 'test pixel')}.",
        caption=f"{words.counted(trained, 'training pixel')} (outlined in black), "
        f"{words.counted(tested, 'test pixel')}; grey is unused."
        + spots(factor, "is marked if it holds a training pixel"),
    )


def _background(run: RunFolder) -> NDArray[np.uint8]:
    """Grey where the map has a class, transparent where there is nodata."""
    grey = np.array(rgba(UNLABELLED), dtype=np.uint8)
    return np.where((read_map(run) != 0)[..., None], grey, np.uint8(0))


def read_map(run: RunFolder) -> NDArray[np.int64]:
    """The map's class ids `(H, W)`, no larger than a picture."""
    with open_raster(run.path / "map.tif") as dataset:
        return dataset.read(1, out_shape=reduced_shape(run.shape), resampling=Resampling.nearest).astype(np.int64)


def _class_colors(run: RunFolder, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Colours `(…, 4)` of class ids; 0 is transparent."""
    known, inverse = np.unique(ids, return_inverse=True)
    colors = [rgba(run.class_of(id).color) if id else (0, 0, 0, 0) for id in known.tolist()]
    return np.array(colors, dtype=np.uint8).reshape(-1, 4)[inverse.reshape(ids.shape)]


def _outlined(picture: NDArray[np.uint8], training: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Enlarge a small picture and draw the outline of the training areas, on a halo that dark classes need."""
    zoom = max(1, min(LARGEST_ZOOM, LONGEST_SIDE // max(training.shape)))
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    training = training.repeat(zoom, axis=0).repeat(zoom, axis=1)
    square = np.ones((3, 3), dtype=bool)
    thickness = max(1, zoom // 4)
    inside: Any = ndimage.binary_erosion(training, square, iterations=thickness, border_value=1)
    around: Any = ndimage.binary_dilation(training, square)
    if zoom >= 4:
        picture[around & ~training] = HALO
    picture[training & ~inside] = OUTLINE
    return picture


def _role_counts(run: RunFolder) -> tuple[int, int]:
    role = run.survey.role
    return int(np.count_nonzero(role == TRAINING)), int(np.count_nonzero(role == TEST))


def _map(run: RunFolder) -> Picture:
    picture = _class_colors(run, read_map(run))
    mapped = {id: pixels for id, pixels in run.survey.mapped.most_common() if id != 0}
    total = sum(mapped.values())
    largest = [f"{run.class_of(id).name} ({words.percent(mapped[id] / total, 0)})" for id in list(mapped)[:3]]
    return Picture(
        "Map",
        png_uri(picture),
        picture.shape[1],
        picture.shape[0],
        alt=f"Map of {words.counted(total, 'pixel')} in {words.counted(len(mapped), 'class', 'classes')}"
        + (f", the largest: {', '.join(largest)}." if largest else "."),
        caption=f"Predicted class of {words.counted(total, 'pixel')}; {_nodata_share(run)} of the scene is nodata.",
    )


def _confidence(run: RunFolder) -> Picture | Absent:
    title = "Confidence"
    if not run.has("map_confidence.tif"):
        return Absent(title, "The folder has no map_confidence.tif, so there is no picture of the confidence.")
    confidence = _read_reduced(run, "map_confidence.tif")
    height, width = confidence.shape
    values = confidence[np.isfinite(confidence)]
    if values.size == 0:
        return Absent(title, "map_confidence.tif holds no value, so there is no picture of the confidence.")
    median, unsure = float(np.median(values)), float(np.mean(values < 0.5))
    spread = f"median {median:.2f}, below 0.5 in {words.percent(unsure, 1)} of the pixels"
    low = min(0.9, math.floor(20 * float(np.quantile(values, 0.02))) / 20)  # in twentieths, to start at a round number
    return Picture(
        title,
        png_uri(ramp_colors((confidence - low) / (1 - low))),
        width,
        height,
        alt=f"Confidence of the map, {spread}.",
        caption=f"Probability of the mapped class; {spread}.",
        ramp=Ramp(CIVIDIS, f"≤ {low:.2f}" if low > 0 else "0", "1"),
    )


def _novelty(run: RunFolder) -> Picture | Absent:
    title = "Novelty"
    novelty = _read_reduced(run, "map_novelty.tif")
    values = novelty[np.isfinite(novelty)]
    if values.size == 0:
        return Absent(title, "map_novelty.tif holds no value, so there is no picture of the novelty.")
    novel = float(np.mean(values > np.float32(0.99)))  # the file's type: 0.99 itself does not count
    spread = f"above 0.99 in {words.percent(novel, 1)} of the pixels"
    return Picture(
        title,
        png_uri(ramp_colors(novelty)),
        novelty.shape[1],
        novelty.shape[0],
        alt=f"How unlike all classes each pixel is, {spread}.",
        caption=f"How unlike all classes: the share of the training side's pixels that are less so; {spread}.",
        ramp=Ramp(CIVIDIS, "0", "1"),
    )


def _set_sizes(run: RunFolder) -> Picture | Absent:
    title, name = "Prediction sets", "map_set_size.tif"
    counts = _count_sizes(run, name)
    total = int(counts.sum())
    if total == 0:
        return Absent(title, f"{name} holds no value, so there is no picture of the prediction sets.")
    there = [
        (color, meaning, held)
        for color, meaning, held in zip(SET_COLORS, SET_MEANINGS, counts.tolist(), strict=True)
        if held
    ]
    spread = ", ".join(f"{meaning} in {words.percent(held / total, 1)}" for _, meaning, held in there)
    table = np.array([(0, 0, 0, 0), *(rgba(color) for color in SET_COLORS)], dtype=np.uint8)
    sizes = _read_reduced(run, name).astype(int)
    picture = table[np.where(sizes == SET_NODATA, 0, 1 + np.minimum(sizes, len(SET_COLORS) - 1))]
    return Picture(
        title,
        png_uri(picture),
        picture.shape[1],
        picture.shape[0],
        alt=f"How many classes each pixel may have by its prediction set: {spread} of {words.counted(total, 'pixel')}.",
        caption=f"How many classes are in each pixel's prediction set: {spread}.",
        key=tuple((color, meaning) for color, meaning, _ in there),
    )


def _count_sizes(run: RunFolder, name: str) -> NDArray[np.int64]:
    """Count the pixels of a layer with none, one, two and more classes in their set, at full resolution."""
    counts = np.zeros(SET_NODATA + 1, dtype=np.int64)
    with open_raster(run.path / name) as dataset:
        height, width = dataset.shape
        for top in range(0, height, STRIP_ROWS):
            window = Window(0, top, width, min(STRIP_ROWS, height - top))  # pyright: ignore[reportCallIssue]
            counts += np.bincount(dataset.read(1, window=window).ravel(), minlength=len(counts))
    last = len(SET_COLORS) - 1
    return np.append(counts[:last], counts[last:SET_NODATA].sum())


def _read_reduced(run: RunFolder, name: str) -> NDArray[np.float64]:
    """Read a layer of the map `(H, W)`, no larger than a picture."""
    with open_raster(run.path / name) as dataset:
        return dataset.read(1, out_shape=reduced_shape(dataset.shape), resampling=Resampling.nearest).astype(float)


def mix(cells: NDArray[np.uint8], counts: NDArray[np.int64], colors: tuple[str, ...]) -> None:
    """Colour each cell `(n, 4)` that holds pixels with the mean colour of its pixels, counts `(n, colours)`."""
    held = counts.sum(axis=1) > 0
    shares = counts[held] / counts[held].sum(axis=1, keepdims=True)
    cells[held] = np.rint(shares @ np.array([rgba(color) for color in colors])).astype(np.uint8)


def spots(factor: int, what: str) -> str:
    """What one spot of a reduced picture stands for, a sentence with a space before it; empty if it is one pixel."""
    return f" A spot of the picture stands for {factor} × {factor} pixels and {what}." if factor > 1 else ""


def _errors(run: RunFolder) -> Picture:
    survey, factor = run.survey, reduction(run.shape)
    picture = _background(run)
    tested, right = survey.role == TEST, survey.predicted == survey.reference
    cells = picture.shape[:2]
    at = np.ravel_multi_index((survey.rows // factor, survey.columns // factor), cells)
    picture.reshape(-1, 4)[at[~tested]] = rgba(TRAINING_GREY)
    counts = [np.bincount(at[tested & chosen], minlength=cells[0] * cells[1]) for chosen in (right, ~right)]
    mix(picture.reshape(-1, 4), np.stack(counts, axis=1), (CORRECT, WRONG))
    wrong, total = int(np.count_nonzero(tested & ~right)), int(np.count_nonzero(tested))
    share = f" ({words.percent(wrong / total)})" if total else ""
    return Picture(
        "Errors",
        png_uri(picture),
        picture.shape[1],
        picture.shape[0],
        alt=f"Of {words.counted(total, 'test pixel')}, {words.count(total - wrong)} are mapped right and "
        f"{words.count(wrong)} wrong{share}.",
        caption=f"{words.count(wrong)} of {words.counted(total, 'test pixel')} wrong{share}."
        + spots(factor, "mixes their colours"),
        key=((CORRECT, "right"), (WRONG, "wrong"), (TRAINING_GREY, "training"), (UNLABELLED, "unlabelled")),
    )
