"""Many scenes, one job: their maps in a folder, and a table of what was mapped, skipped and failed."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from spectralmamba import cluster
from spectralmamba.classifier import Classifier
from spectralmamba.errors import OutputError, SceneError, SpectralMambaError
from spectralmamba.files import write_text
from spectralmamba.gis.beside import GisFiles, write_gis_files
from spectralmamba.gis.finished_map import beside
from spectralmamba.inference import Precision
from spectralmamba.mapping import map_scene
from spectralmamba.scenes import open_scene
from spectralmamba.scenes.opening import is_one_scene, is_product_folder, is_remote
from spectralmamba.scenes.products.finding import Product, find_in_zip, find_product, stands_for_product
from spectralmamba.scenes.resampling import resampled_in_words
from spectralmamba.scenes.scene import file_state, path_state

if TYPE_CHECKING:
    from distributed import Client

TABLE = "maps.csv"
MAPPED, SKIPPED, FAILED = "mapped", "skipped", "failed"
_SUFFIXES = (".hdr", ".tif", ".tiff", ".mat", ".npy", ".zarr")
_LISTS, _ITEMS = (".txt",), (".json", ".geojson")


@dataclass(frozen=True)
class Outcome:
    """What became of a scene; a row of the table.

    Attributes:
        scene: The scene's file.
        map: The class map's file.
        outcome: "mapped", "skipped" (an earlier run had mapped it) or "failed".
        reason: Why it failed; empty else.
        pixels: Classified pixels.
        seconds: What it took.
        source: The file that holds its values, which may be another than a header.
        bytes: Size of that file.
        changed: When that file last changed, in ns; of a Zarr store a number that changes with its files.
        classifier: Fingerprint of the classifier.
        resampled: What it was resampled from and to; empty if it has the classifier's bands.
    """

    scene: str
    map: str
    outcome: str
    reason: str = ""
    pixels: int = 0
    seconds: float = 0.0
    source: str = ""
    bytes: int = 0
    changed: int = 0
    classifier: str = ""
    resampled: str = ""


def names_several(place: Path) -> bool:
    """Tell whether a path names scenes by a folder, a list or STAC items, rather than being one."""
    return (place.is_dir() and not is_one_scene(place)) or place.suffix.lower() in (*_LISTS, *_ITEMS)


def find_scenes(places: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the scenes that are meant: files, all scenes in a folder, the lines of a `.txt`, the data of STAC items in a `.json`.

    A Zarr store is a folder that counts as one scene, and in a folder so does one whose name ends with `.zarr`; so is the folder of
    a product. In a folder the zip of a product is a scene, too, unless the product lies there unpacked.
    Paths in a list or in items are relative to its folder. Of an item the first asset with the role "data" counts, else the first
    whose name ends like a scene's.

    Raises:
        SceneError: A folder holds no scene, or a list or item collection cannot be read.
    """
    found: list[str] = []
    for place in places:
        path = Path(place)
        if path.is_dir() and not is_one_scene(path):
            inside = sorted(file for file in path.iterdir() if _is_scene_in_folder(file))
            inside = sorted((*inside, *_zips_of_products(path, inside)))
            if not inside:
                raise SceneError(
                    "the folder holds no scene", file=path, expected=f"files with {', '.join(_SUFFIXES)}, or products"
                )
            found += map(str, inside)
        elif path.suffix.lower() in _LISTS:
            lines = [line.strip() for line in _read(path).splitlines()]
            found += [_beside(path, line) for line in lines if line and not line.startswith("#")]
        elif path.suffix.lower() in _ITEMS:
            found += [_beside(path, href) for href in _of_items(path)]
        else:
            found.append(os.fspath(place))
    return found


@cluster.takes_address
def map_scenes(
    classifier: Classifier,
    scenes: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    tile: int | None = None,
    memory: int | None = None,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    variable: str | None = None,
    band_axis: int | None = None,
    format: str | None = None,
    keep: Iterable[str] = (),
    water_bands: bool = False,
    on_scene: Callable[[Outcome], None] | None = None,
    on_tile: Callable[[int, int], None] | None = None,
    dask: str | Client | None = None,
    precision: Precision = "float32",
    allow_missing_range: bool = False,
    gis: GisFiles | None = None,
) -> list[Outcome]:
    """Map scenes one after the other; one that fails does not stop the others.

    "maps.csv" in the folder has a row for each scene, also of earlier jobs, written as soon as it has ended.

    Args:
        classifier: From `fit` or `Classifier.load`.
        scenes: Their files; "a/field.hdr" becomes "field_map.tif".
        folder: Where maps go; it is made if it is not there.
        tile: As `map_scene` has it.
        memory: As `map_scene` has it.
        workers: As `map_scene` has it.
        resume: Skip scenes that this classifier has mapped and that have not changed since, and go on in the one that was stopped.
        overwrite: Write over maps that are there.
        variable: The scenes' variable in MATLAB files and Zarr stores that hold several.
        band_axis: Axis of the bands in MATLAB or NumPy cubes.
        format: As `open_scene` has it.
        keep: As `open_scene` has it.
        water_bands: As `open_scene` has it.
        on_scene: Called with what became of each scene.
        on_tile: As `map_scene` has it, of the scene that is being mapped.
        dask: As `map_scene` has it; scenes are still mapped one after the other.
        precision: As `map_scene` has it.
        allow_missing_range: As `map_scene` has it.
        gis: As `map_scene` has it, of each map; a path as `polygons` is the folder for "field_map_polygons.gpkg", which is made if
            it is not there. With `resume` the maps that are skipped get what they lack of it.

    Raises:
        ClusterError: The cluster does not answer or cannot do the work; this stops the job.
        OutputError: Two scenes would have one map, maps would lie among the scenes, or a map is there and is neither to be
            resumed nor overwritten; or polygons of all are to go to one file.
    """
    out, names = Path(folder), [os.fspath(scene) for scene in scenes]
    files = _map_files(names, out)
    if not (resume or overwrite):
        for file in files:
            if file.exists():
                raise OutputError(
                    "this map exists",
                    file=file,
                    remedy="Add --resume to leave finished maps as they are, or --overwrite to make them anew.",
                )
    polygons = None if gis is None or isinstance(gis.polygons, bool) else Path(gis.polygons)
    if polygons is not None and (polygons.suffix.lower() == ".gpkg" or polygons.is_file()):
        raise OutputError("of several scenes polygons go to a folder", file=polygons, remedy="Name a folder for them.")
    out.mkdir(parents=True, exist_ok=True)
    if polygons is not None:
        polygons.mkdir(parents=True, exist_ok=True)
    known, fingerprint = _read_table(out / TABLE), classifier.fingerprint()
    options: dict[str, Any] = {
        "tile": tile,
        "memory": memory,
        "workers": workers,
        "resume": resume,
        "dask": dask,
        "precision": precision,
    }
    opening: dict[str, Any] = {
        "variable": variable,
        "band_axis": band_axis,
        "format": format,
        "keep": tuple(keep),
        "water_bands": water_bands,
    }
    outcomes = []
    for scene, file in zip(names, files, strict=True):
        earlier = known.get(scene)
        wanted = None if gis is None else _of_map(gis, file)
        outcome = _skipped(earlier, file, fingerprint) if resume and earlier is not None else None
        if outcome is not None and wanted:
            outcome = _completed(outcome, wanted, file)
        elif outcome is None:
            start, state, pixels, reason, resampled = time.perf_counter(), {}, 0, "", ""
            try:
                opened = open_scene(scene, **opening)
                state = file_state(opened)
                opened = classifier.adapt_scene(opened, allow_missing_range=allow_missing_range)
                resampled = resampled_in_words(opened) or ""
                pixels = map_scene(
                    classifier, opened, file, keep_unfinished=True, on_tile=on_tile, gis=wanted, **options
                ).pixels
            except cluster.ClusterError:  # the other scenes would fare no better
                raise
            except SpectralMambaError as error:
                reason = str(error)
            except Exception as error:  # of a thousand scenes the others are not to wait for what is wrong with one
                reason = f"{type(error).__name__}: {error}"
            outcome = Outcome(
                scene,
                str(file),
                FAILED if reason else MAPPED,
                reason,
                pixels,
                round(time.perf_counter() - start, 2),
                **state,
                classifier=fingerprint,
                resampled=resampled,
            )
            known[scene] = outcome
            _append(out / TABLE, outcome)
        outcomes.append(outcome)
        if on_scene is not None:
            on_scene(outcome)
    _write_table(out / TABLE, known.values())
    return outcomes


def _is_scene_in_folder(file: Path) -> bool:
    """Tell whether an entry of a folder is a scene; of a product's files the one that stands for it is."""
    if file.name.startswith("."):
        return False
    if file.is_dir() and is_product_folder(file):
        return True
    told = stands_for_product(file.name)
    return _is_scene(file.name) if told is None else told


def _zips_of_products(folder: Path, scenes: list[Path]) -> list[Path]:
    """Return the zips in a folder that hold a product which is not among its scenes, unpacked.

    Of several zips of one product the first counts. One that cannot be looked into does, so that it is told what is wrong with it.
    """
    zips = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".zip" and not file.name.startswith("."))
    known = {product.identity for scene in scenes if zips and (product := _product(scene)) is not None}
    found = []
    for file in zips:
        try:
            product = find_in_zip(file)
        except (SceneError, OSError):
            found.append(file)
            continue
        if product is not None and product.identity not in known:
            known.add(product.identity)
            found.append(file)
    return found


def _product(scene: Path) -> Product | None:
    try:
        return find_product(scene)
    except SceneError:
        return None


def _is_scene(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError("this list of scenes cannot be read", file=path, found=error, expected="UTF-8 text") from error


def _beside(path: Path, name: str) -> str:
    """Return a file's name in a list as a path from here; what is no local file stays as it is."""
    parts = urlparse(name)
    if parts.scheme == "file":
        return unquote(parts.path)
    return name if is_remote(name) else str(path.parent / name)


def _of_items(path: Path) -> list[str]:
    """Return the references of the data of STAC items, https://github.com/radiantearth/stac-spec, item-spec."""
    expected = "a STAC item or item collection"
    try:
        content: Any = json.loads(_read(path))
        items = content["features"] if content["type"] == "FeatureCollection" else [content]
        found = []
        for item in items:
            assets = list(item["assets"].values())
            ours = [asset for asset in assets if "data" in asset.get("roles", ())] or [
                asset for asset in assets if _is_scene(asset["href"])
            ]
            if not ours:
                raise SceneError(
                    "an item has no data", file=path, found=item["id"], expected='an asset of the role "data"'
                )
            found.append(str(ours[0]["href"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SceneError("this is no list of scenes", file=path, found=repr(error), expected=expected) from error
    return found


def _map_files(scenes: list[str], folder: Path) -> list[Path]:
    """Return the file of each scene's map, each its own and none among the scenes."""
    taken: dict[Path, str] = {}
    for scene in scenes:
        path = Path(scene)
        file = folder / f"{path.stem}_map.tif"
        if file in taken:
            raise OutputError(
                "two scenes would have one map",
                file=file,
                found=f"{taken[file]} and {scene}",
                remedy="Map them into two folders, or rename one.",
            )
        if path.parent.resolve() == folder.resolve():
            raise OutputError("maps would lie among the scenes", file=folder, remedy="Choose another --out.")
        taken[file] = scene
    return list(taken)


def _skipped(earlier: Outcome, file: Path, fingerprint: str) -> Outcome | None:
    """Return the outcome of a scene that has been mapped already, None if it has to be mapped."""
    if earlier.outcome != MAPPED or earlier.classifier != fingerprint or not file.is_file():
        return None
    try:
        state = path_state(Path(earlier.source))
    except OSError:
        return None
    if state != {"bytes": earlier.bytes, "changed": earlier.changed}:
        return None
    return replace(earlier, outcome=SKIPPED)


def _of_map(gis: GisFiles, file: Path) -> GisFiles:
    """Return what is asked for of one map: polygons are a file of its own in the folder."""
    if isinstance(gis.polygons, bool):
        return gis
    return replace(gis, polygons=Path(gis.polygons) / beside(file, "polygons", ".gpkg").name)


def _completed(outcome: Outcome, wanted: GisFiles, file: Path) -> Outcome:
    """Make of a skipped map what it lacks; where that fails, the map stays mapped in the table."""
    try:
        write_gis_files(wanted, file, missing_only=True)
    except SpectralMambaError as error:
        return replace(outcome, outcome=FAILED, reason=str(error))
    return outcome


def _append(table: Path, outcome: Outcome) -> None:
    with table.open("a", encoding="utf-8", newline="") as file:
        # A row of its own even after one that a kill cut short.
        file.write(("" if file.tell() else ",".join(_columns())) + "\r\n" + _row(outcome))


def _write_table(table: Path, outcomes: Iterable[Outcome]) -> None:
    write_text(table, "\r\n".join([",".join(_columns()), *map(_row, outcomes)]))


def _columns() -> list[str]:
    return [field.name for field in fields(Outcome)]


def _row(outcome: Outcome) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(asdict(outcome).values())
    return text.getvalue()


def _read_table(table: Path) -> dict[str, Outcome]:
    """Return the last row of each scene; rows that are damaged do not count."""
    known: dict[str, Outcome] = {}
    if not table.is_file():
        return known
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            with suppress(TypeError, ValueError, KeyError):
                kinds = {"pixels": int, "seconds": float, "bytes": int, "changed": int}
                values: dict[str, Any] = {name: kinds.get(name, str)(text) for name, text in row.items()}
                outcome = Outcome(**values)
                if outcome.classifier:
                    known[outcome.scene] = outcome
    return known
