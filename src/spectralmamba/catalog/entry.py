"""What the catalogue says of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spectralmamba.scenes.palette import default_colors

Reader = Literal["cube", "pixels", "spectra", "abundances"]
"""A cube of all pixels; labelled pixels with their positions; spectra without positions; spectra and shares of materials."""


@dataclass(frozen=True)
class Class:
    """A class of land cover.

    Attributes:
        id: Its number in the label file.
        name: As published.
        color: "#rrggbb" as published; None takes the default palette's.
    """

    id: int
    name: str
    color: str | None = None


@dataclass(frozen=True)
class DataFile:
    """A file that belongs to a data set.

    Attributes:
        name: Its name in the cache.
        urls: Where it can be downloaded, tried in turn; empty if there is no address that may be used without a form.
        sha256: Its SHA-256; None if it is not known, so that the first download is taken on trust.
        git_blob: Its Git object id (SHA-1 of its length and bytes), by which repositories that hold it name it.
        size: Bytes, None if not known.
        archive: The name of the archive of the same data set that it is a member of, None if it stands alone.
        inside: Part of the path that tells it from files of the same name.
    """

    name: str
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    git_blob: str | None = None
    size: int | None = None
    archive: str | None = None
    inside: str = ""


@dataclass(frozen=True)
class Masks:
    """Which pixels train and which test, as published.

    Attributes:
        train: The file of the training mask.
        test: The file of the test mask; None if all other labelled pixels test.
        train_variable: Its variable in a MATLAB file, None if there is only one.
        test_variable: The same of the test mask.
        positions: The files hold (row, column), from 0, instead of masks.
        add_labels: The training mask holds class ids, also of pixels without a label in the ground truth.
    """

    train: str
    test: str | None = None
    train_variable: str | None = None
    test_variable: str | None = None
    positions: bool = False
    add_labels: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files, each once."""
        return tuple(dict.fromkeys(name for name in (self.train, self.test) if name is not None))


@dataclass(frozen=True)
class Layout:
    """One of the forms in which a data set is passed on.

    Attributes:
        scene: The file of the scene.
        labels: The file of the ground truth; None if the scene's file or the masks hold it.
        reader: What the scene's file holds.
        scene_variable: The cube's variable, None if there is only one.
        label_variable: The ground truth's variable, None if there is only one.
        masks: The fixed split, if there is one.
        companions: Further files that are needed to read these, such as headers.
        bands: How many bands, from the first, are measurements; None is all.
        finer_labels: Label pixels along each side of a pixel of the scene.
        named: Whether its ids are those of the entry's classes.
    """

    scene: str
    labels: str | None = None
    reader: Reader = "cube"
    scene_variable: str | None = None
    label_variable: str | None = None
    masks: Masks | None = None
    companions: tuple[str, ...] = ()
    bands: int | None = None
    finer_labels: int = 1
    named: bool = True

    @property
    def required(self) -> tuple[str, ...]:
        """The files without which scene and labels cannot be opened."""
        needed = [self.scene, *self.companions]
        if self.labels is not None:
            needed.append(self.labels)
        elif self.reader == "cube" and self.masks is not None:
            needed += self.masks.files
        return tuple(dict.fromkeys(needed))

    @property
    def optional(self) -> tuple[str, ...]:
        """The files of the split, where scene and labels can do without."""
        return tuple(name for name in (self.masks.files if self.masks else ()) if name not in self.required)


@dataclass(frozen=True)
class Entry:
    """A public data set: what it is, who publishes it, and how its files are had and read.

    Attributes:
        name: The name by which it is asked for.
        title: Its name in print.
        page: Where it is published.
        terms: Licence or terms as published; says so if none is stated.
        citation: What to cite.
        sensor: The instrument, with its ground sampling distance.
        shape: Rows and columns.
        bands: Bands of the scene as it is opened.
        classes: Its classes by ascending id; empty if the files name them.
        layouts: The forms in which it is passed on, the preferred one first.
        files: The files of all layouts, and archives that hold them.
        spectral_range: First and last wavelength in nm as published.
        wavelengths: Band centres in nm; None if the scene's file holds them or nobody says.
        wavelength_source: Where they come from, or that they are unknown.
        removed_bands: Which bands of the sensor were taken out before publication.
        split: What the fixed split is, None if there is none.
        form: Whether a form must be filled in, or an agreement accepted, before the download.
        folder: Its folder in a folder of reference data (`SPECTRALMAMBA_DATA`).
        notes: What the user should know besides.
        sources: Where the facts come from.
    """

    name: str
    title: str
    page: str
    terms: str
    citation: str
    sensor: str
    shape: tuple[int, int]
    bands: int
    classes: tuple[Class, ...]
    layouts: tuple[Layout, ...]
    files: tuple[DataFile, ...]
    spectral_range: tuple[float, float] | None = None
    wavelengths: tuple[float, ...] | None = None
    wavelength_source: str = "unknown"
    removed_bands: str = "none"
    split: str | None = None
    form: bool = False
    folder: str = ""
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def class_names(self) -> dict[int, str]:
        """`{id: name}`."""
        return {entry.id: entry.name for entry in self.classes}

    @property
    def class_colors(self) -> dict[int, str]:
        """`{id: "#rrggbb"}`, complete."""
        given: Mapping[int, str] = {entry.id: entry.color for entry in self.classes if entry.color is not None}
        missing = [entry.id for entry in self.classes if entry.id not in given]
        colors = {**default_colors(missing, taken=given.values()), **given}
        return {id_: colors[id_] for id_ in sorted(colors)}

    def file(self, name: str) -> DataFile:
        """Return the file of this name; one that the catalogue knows nothing of has nothing but its name."""
        return next((file for file in self.files if file.name == name), DataFile(name))

    def downloadable(self, name: str) -> bool:
        """Tell whether a file, or the archive that holds it, has an address."""
        file = self.file(name)
        return bool(file.urls) or (file.archive is not None and bool(self.file(file.archive).urls))
