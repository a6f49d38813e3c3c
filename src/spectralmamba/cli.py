"""The command line: words only. It parses, calls and prints."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from spectralmamba import __version__
from spectralmamba.errors import SettingsError, SpectralMambaError, SplitError, TrainingInterrupted

if TYPE_CHECKING:
    import xarray as xr

    from spectralmamba.classifier import Classifier
    from spectralmamba.evaluation import Scores
    from spectralmamba.settings import Settings
    from spectralmamba.splits import Split
    from spectralmamba.training import Progress

USER_ERROR, DEFECT, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="spectralmamba",
    help="Tell what each pixel of a hyperspectral scene is: from a scene and a few labels to a map and its accuracy.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

SceneFile = Annotated[
    Path, typer.Argument(help="Scene: MATLAB, ENVI (.hdr or data file), GeoTIFF or .npy.", show_default=False)
]
LabelFile = Annotated[
    Path,
    typer.Argument(
        help="Labels: class raster (MATLAB, GeoTIFF, ENVI, .npy, .png) or vectors (GeoPackage, GeoJSON, Shapefile).",
        show_default=False,
    ),
]
ModelFile = Annotated[
    Path, typer.Argument(help="Classifier: the model.safetensors that training wrote.", show_default=False)
]
Variable = Annotated[str | None, typer.Option(help="The scene's variable in a MATLAB file that holds several.")]
BandAxis = Annotated[
    int | None, typer.Option(help="Axis of the bands in a MATLAB or .npy cube: 0, 1 or 2.", min=0, max=2)
]
LabelVariable = Annotated[str | None, typer.Option(help="The labels' variable in a MATLAB file that holds several.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of a vector file that names the class.")]
LabelLayer = Annotated[str | None, typer.Option(help="Layer of a vector file that has several.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.")]


def main() -> None:
    """Run the command line; leave with 2 for a mistake that the user can mend, 1 for a defect of the program."""
    try:
        app(standalone_mode=True)
    except TrainingInterrupted as error:
        errors.print(f"[yellow]Stopped:[/yellow] {_plain(error)}")
        sys.exit(INTERRUPTED)
    except SpectralMambaError as error:
        errors.print(f"[red]Error:[/red] {_plain(error)}")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        errors.print("[yellow]Stopped.[/yellow]")
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        errors.print(
            "[red]This is a defect of spectralmamba, not a mistake of yours.[/red] Please report it with the lines above."
        )
        sys.exit(DEFECT)


def _plain(error: SpectralMambaError) -> str:
    return str(error).replace("[", r"\[")


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


@app.command()
def info(
    scene: SceneFile,
    labels: Annotated[Path | None, typer.Argument(help="Labels to count.", show_default=False)] = None,
    variable: Variable = None,
    band_axis: BandAxis = None,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a scene (and its labels) holds: size, bands, wavelengths, bad bands, nodata, values, classes."""
    from spectralmamba.scenes import open_labels, open_scene
    from spectralmamba.scenes.describe import describe_scene

    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    ids = None
    if labels is not None:
        ids = open_labels(labels, opened, variable=label_variable, column=label_column, layer=layer)
    description = describe_scene(opened, ids)
    if json:
        import json as json_module

        print(json_module.dumps(description.to_dict(), indent=1))
        return
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(description.to_dict()):
        facts.add_row(f"[bold]{name}[/bold]", value.replace("[", r"\["))
    console.print(facts)
    if description.classes is not None:
        _print_classes(description.classes)


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "file", found["file"]
    yield "size", f"{found['rows']} rows × {found['columns']} columns × {found['bands']} bands, {found['raw_dtype']}"
    if found["pixel_size"] is None:
        yield "georeference", "none; a map of it will have none either"
    else:
        code = f" (EPSG:{found['epsg']})" if found["epsg"] else ""
        yield "CRS", f"{found['crs'] or 'unknown'}{code}"
        width, height = found["pixel_size"]
        yield "pixel", f"{width:g} × {height:g} units of the CRS" + (", rotated" if found["rotated"] else "")
        yield "bounds", ", ".join(f"{value:.10g}" for value in found["bounds"]) + " (left, bottom, right, top)"
    if found["wavelength_range"] is None:
        yield "wavelengths", "unknown"
    else:
        low, high = found["wavelength_range"]
        width = f", mean FWHM {found['mean_fwhm']:.1f} nm" if found["mean_fwhm"] else ""
        yield "wavelengths", f"{low:.1f} to {high:.1f} nm{width}"
    yield "bad bands", _ranges_by_reason(found["bad_bands"]) or "none"
    looked_at = "all pixels" if found["exact"] else f"a sample of {found['pixels_examined']} pixels"
    yield (
        "nodata",
        f"{found['nodata_share']:.1%} of {looked_at}; {found['nan_values']} NaN, {found['infinite_values']} infinite values",
    )
    if found["minimum"] is not None:
        low, middle, high = (found["percentiles"][key] for key in ("2", "50", "98"))
        yield "values", f"{found['minimum']:g} to {found['maximum']:g}; 2 %, 50 %, 98 %: {low:g}, {middle:g}, {high:g}"
    for note in found["notes"]:
        yield "note", note
    for name, count in (found["label_report"] or {}).items():
        if count:
            yield "labels", f"{name.replace('_', ' ')}: {count}"


def _ranges_by_reason(bad_bands: dict[str, str]) -> str:
    """Say "4-6, 9: reason; 12: another reason"."""
    by_reason: dict[str, list[list[int]]] = {}
    for band, reason in sorted((int(band), reason) for band, reason in bad_bands.items()):
        ranges = by_reason.setdefault(reason, [])
        if ranges and ranges[-1][1] == band - 1:
            ranges[-1][1] = band
        else:
            ranges.append([band, band])
    return "; ".join(
        ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) + f": {reason}"
        for reason, ranges in by_reason.items()
    )


def _print_classes(classes: list[Any]) -> None:
    table = Table("class", "name", "labelled pixels")
    table.columns[2].justify = "right"
    for entry in classes:
        table.add_row(f"[{entry.color}]■[/] {entry.id}", entry.name.replace("[", r"\["), str(entry.pixels))
    console.print(table)


def _with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `train`, which it takes as keyword arguments."""
    command.__signature__ = inspect.signature(train, eval_str=True)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = train.__annotations__
    return command


@app.command()
def train(
    scene: SceneFile,
    labels: LabelFile,
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    split: Annotated[
        str,
        typer.Option(
            help="How labels are divided: random; or apart in space: blocks, regions (whole fields), columns, rows; or masks; or "
            "none (all labels train, nothing is scored)."
        ),
    ] = "random",
    per_class: Annotated[
        int | None, typer.Option(help="Training pixels a class.", show_default="10 for random")
    ] = None,
    fraction: Annotated[float | None, typer.Option(help="Or the share of each class that trains (random).")] = None,
    train_fraction: Annotated[float, typer.Option(help="Share that trains (blocks, regions, columns, rows).")] = 0.5,
    block_size: Annotated[int | None, typer.Option(help="Width of a block in pixels (blocks).")] = None,
    boundary: Annotated[int | None, typer.Option(help="First column or row that tests (columns, rows).")] = None,
    buffer: Annotated[
        int | None,
        typer.Option(help="Pixels left out between training and test areas.", show_default="the patch's reach"),
    ] = None,
    train_mask: Annotated[Path | None, typer.Option(help="Raster that is not 0 where labels train (masks).")] = None,
    test_mask: Annotated[Path | None, typer.Option(help="Raster that is not 0 where labels test (masks).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of split and training.", min=0)] = 0,
    seeds: Annotated[str | None, typer.Option(help="Several seeds, 0,1,2: one folder each, and mean ± sd.")] = None,
    model: Annotated[str | None, typer.Option(help="Network; `spectralmamba models` lists them.")] = None,
    preset: Annotated[str | None, typer.Option(help="The network's preset: default, paper.")] = None,
    patch: Annotated[
        int | None, typer.Option(help="Odd width of the neighbourhood; 1 is pixelwise.", show_default="7")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="1000")] = None,
    class_balanced: Annotated[bool, typer.Option("--class-balanced", help="Draw every class equally often.")] = False,
    settings: Annotated[
        Path | None, typer.Option(help="TOML file of settings, as a run keeps in settings.toml.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One more setting, name=value; may be given several times.")
    ] = None,
    variable: Variable = None,
    band_axis: BandAxis = None,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over results in the folder.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the folder.")] = False,
) -> None:
    """Train a classifier and keep it with its split, settings and log in a folder."""
    for run in _runs(locals()):
        run.train()
        console.print(f"Classifier: {run.run.model}")


@app.command(name="run")
@_with_training_options
def run_all(**options: Any) -> None:
    """Do it all: train, evaluate, map and report, in one folder."""
    scores: dict[int, Scores] = {}
    folder = options["out"]
    for run in _runs(options, scored=True):
        classifier = run.train()
        with _bar("map") as advance:
            files = run.run.map(classifier, run.scene, advance)
        if not files.georeferenced:
            console.print("The scene has no georeference, so the map has none.")
        scores[run.settings.seed] = run.evaluate(classifier)
        _print_scores(scores[run.settings.seed])
        report_file = run.run.report()
        console.print(f"Map: {files.classes}\nReport: {report_file}")
    if options["seeds"] is not None:
        from spectralmamba.runs import write_summary

        console.print(f"Report of all seeds: {write_summary(folder, scores)}")


@dataclass(frozen=True)
class _PreparedRun:
    """Everything one seed's training needs."""

    run: Any
    scene: xr.DataArray
    labels: xr.DataArray
    split: Split | None
    settings: Settings
    device: str
    resume: bool

    def train(self) -> Classifier:
        console.print(_summary(self.split, self.settings.patch))
        with _training_bar(self.settings.steps) as on_step:
            return self.run.train(
                self.scene,
                self.labels,
                self.split,
                self.settings,
                device=self.device,
                resume=self.resume,
                on_step=on_step,
            )

    def evaluate(self, classifier: Classifier) -> Scores:
        assert self.split is not None  # a run that is scored has been refused without a split
        return self.run.evaluate(classifier, self.scene, self.labels, self.split)


def _summary(split: Split | None, patch: int) -> str:
    if split is None:
        return "All labelled pixels train; nothing is left to score."
    return split.with_patch(patch).summary().replace("[", r"\[")


def _runs(options: dict[str, Any], scored: bool = False) -> Iterator[_PreparedRun]:
    """Check everything that can be wrong, then make one folder a seed."""
    settings = _settings(options)
    seeds = _seeds(options)
    _check_split_options(options, scored)
    from spectralmamba.scenes import open_labels, open_scene

    scene = open_scene(options["scene"], variable=options["variable"], band_axis=options["band_axis"])
    labels = open_labels(
        options["labels"],
        scene,
        variable=options["label_variable"],
        column=options["label_column"],
        layer=options["layer"],
    )
    for name, count in labels.attrs.get("report", {}).items():
        if count:
            console.print(f"Labels left out, {name.replace('_', ' ')}: {count}")
    splits = {seed: _split(options, scene, labels, seed, settings.patch) for seed in seeds}
    from spectralmamba.models import create_model
    from spectralmamba.runs import Run, prepare_folder

    bands = int(scene["good"].values.sum())
    create_model(
        settings.model, bands=bands, classes=2, patch=settings.patch, preset=settings.preset, **settings.model_options
    )
    folder = prepare_folder(options["out"], overwrite=options["overwrite"], resume=options["resume"])
    for seed in seeds:
        if len(seeds) > 1:
            console.rule(f"seed {seed}")
        several = options["seeds"] is not None
        place = folder
        if several:
            place = prepare_folder(folder / f"seed-{seed}", overwrite=options["overwrite"], resume=options["resume"])
        yield _PreparedRun(
            Run(place), scene, labels, splits[seed], settings.replace(seed=seed), options["device"], options["resume"]
        )


def _settings(options: dict[str, Any]) -> Settings:
    from spectralmamba.settings import Settings

    settings = Settings() if options["settings"] is None else Settings.load(options["settings"])
    changes: dict[str, Any] = {
        name: options[name] for name in ("model", "preset", "patch", "steps") if options[name] is not None
    }
    if options["class_balanced"]:
        changes["class_balanced"] = True
    for text in options["setting"] or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsError("--set takes name=value", found=text, remedy="Write it like --set noise=0.3.")
        changes[name.strip()] = _toml_value(value.strip())
    return settings.replace(**changes)


def _toml_value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _seeds(options: dict[str, Any]) -> list[int]:
    if options["seeds"] is None:
        return [options["seed"]]
    try:
        seeds = [int(part) for part in options["seeds"].split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise SettingsError("--seeds takes different whole numbers", found=options["seeds"], expected="like 0,1,2,3,4")
    return seeds


_SPLIT_METHODS = ("random", "blocks", "regions", "columns", "rows", "masks", "none")


def _check_split_options(options: dict[str, Any], scored: bool) -> None:
    if options["split"] not in _SPLIT_METHODS:
        raise SplitError("unknown split", found=options["split"], expected=", ".join(_SPLIT_METHODS))
    if scored and options["split"] == "none":
        raise SplitError(
            "nothing is left to score with --split none", remedy="Use `spectralmamba train`, then `spectralmamba map`."
        )
    masks = [options["train_mask"], options["test_mask"]]
    if (options["split"] == "masks") != all(mask is not None for mask in masks):
        raise SplitError("--train-mask and --test-mask go with --split masks, both of them")


def _split(options: dict[str, Any], scene: xr.DataArray, labels: xr.DataArray, seed: int, patch: int) -> Split | None:
    from spectralmamba.scenes import open_labels
    from spectralmamba.splits import split_disjoint, split_masks, split_random

    method = options["split"]
    if method == "none":
        return None
    if method == "masks":
        train_mask, test_mask = (open_labels(options[name], scene) for name in ("train_mask", "test_mask"))
        return split_masks(train_mask, test_mask, labels=labels, patch=patch)
    if method == "random":
        per_class = 10 if options["per_class"] is None and options["fraction"] is None else options["per_class"]
        return split_random(labels, per_class=per_class, fraction=options["fraction"], seed=seed, patch=patch)
    if options["fraction"] is not None:
        raise SplitError("--fraction goes with --split random", remedy="Use --train-fraction.")
    names = ("train_fraction", "block_size", "boundary", "buffer", "per_class")
    return split_disjoint(labels, method=method, seed=seed, patch=patch, **{name: options[name] for name in names})


@app.command()
def evaluate(
    model: ModelFile,
    scene: SceneFile,
    labels: LabelFile,
    all_labels: Annotated[
        bool,
        typer.Option(
            "--all", help="Score on all labels, not only on the test pixels of the split beside the classifier."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file too.")] = None,
    variable: Variable = None,
    band_axis: BandAxis = None,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    device: Device = "auto",
) -> None:
    """Score a classifier on labels: overall and average accuracy, kappa, and each class."""
    from spectralmamba.classifier import Classifier
    from spectralmamba.evaluation import evaluate as evaluate_map
    from spectralmamba.files import write_json
    from spectralmamba.runs import split_beside
    from spectralmamba.scenes import open_labels, open_scene

    classifier = Classifier.load(model, device)
    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    classifier.check_scene(opened)
    ids = open_labels(labels, opened, variable=label_variable, column=label_column, layer=layer)
    split = None if all_labels else split_beside(model, ids)
    if split is None:
        console.print("Scored on all labels; if some of them trained this classifier, the scores flatter it.")
    else:
        console.print(_summary(split, classifier.patch))
    scores = evaluate_map(classifier.predict(opened), ids, where=None if split is None else split.test)
    _print_scores(scores)
    if out is not None:
        write_json(out, scores.to_dict() | {"split": None if split is None else split.record})


def _print_scores(scores: Scores) -> None:
    found = scores.to_dict()
    words = {
        "overall_accuracy": "overall accuracy",
        "average_accuracy": "average accuracy",
        "kappa": "kappa",
        "macro_f1": "macro F1",
    }
    for key, name in words.items():
        interval = found["intervals"].get(key)
        spread = f"  ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        console.print(f"{name:<17} {_number(found[key])}{spread}")
    table = Table("class", "name", "test pixels", "precision", "recall", "F1")
    for entry in found["per_class"]:
        numbers = (_number(entry[key]) for key in ("precision", "recall", "f1"))
        table.add_row(
            f"[{entry['color']}]■[/] {entry['id']}",
            entry["name"].replace("[", r"\["),
            str(entry["reference"]),
            *numbers,
        )
    console.print(table)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


@app.command(name="map")
def map_command(
    model: ModelFile,
    scene: SceneFile,
    out: Annotated[Path, typer.Option(help="GeoTIFF to write; the confidence goes beside it.", show_default=False)],
    tile: Annotated[int, typer.Option(help="Rows and columns that are classified at a time.", min=1)] = 512,
    variable: Variable = None,
    band_axis: BandAxis = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a map of that name.")] = False,
) -> None:
    """Classify a whole scene and write the map as a cloud-optimised GeoTIFF."""
    from spectralmamba.classifier import Classifier
    from spectralmamba.errors import OutputError
    from spectralmamba.mapping import map_scene
    from spectralmamba.scenes import open_scene

    if out.exists() and not overwrite:
        raise OutputError("this file exists", file=out, remedy="Choose another name with --out or add --overwrite.")
    classifier = Classifier.load(model, device)
    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    with _bar("map") as advance:
        files = map_scene(classifier, opened, out, tile=tile, on_tile=advance)
    console.print(f"Map: {files.classes}\nConfidence: {files.confidence}")
    if not files.georeferenced:
        console.print("The scene has no georeference, so the map has none.")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]) -> None:
    """Write a run's report again, from what its folder holds."""
    from spectralmamba.report import write_report, write_summary_report

    write = write_summary_report if (folder / "summary.json").is_file() else write_report
    console.print(f"Report: {write(folder)}")


@app.command()
def models(
    bands: Annotated[int, typer.Option(help="Bands of a spectrum.", min=1)] = 145,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 14,
) -> None:
    """List the networks with their parameters and multiply-accumulates a pixel."""
    from spectralmamba.models import create_model, list_models, list_presets, model_size

    table = Table("model", "preset", "patch", "parameters", "MACs a pixel")
    for column in table.columns[2:]:
        column.justify = "right"
    for name in list_models():
        for preset in list_presets(name):
            for patch in (1, 3, 7):
                network = create_model(name, bands=bands, classes=classes, patch=patch, preset=preset)
                size = model_size(network, bands, patch)
                table.add_row(name, preset, str(patch), f"{size.parameters:,}", f"{size.multiply_accumulates:,}")
    console.print(table)
    console.print(
        f"At {bands} bands and {classes} classes. Matrix products and convolutions are counted by torch's FlopCounterMode, the "
        "selective scan as tokens × channels × (4 × states + 2)."
    )


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for scene.tif and labels.tif.", show_default=False)],
    rows: Annotated[int, typer.Option(help="Rows.", min=8)] = 96,
    columns: Annotated[int, typer.Option(help="Columns.", min=8)] = 96,
    bands: Annotated[int, typer.Option(help="Bands between 400 and 2500 nm.", min=1)] = 120,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 6,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
) -> None:
    """Write a simulated scene and its labels, to try things out."""
    from spectralmamba.runs import prepare_folder
    from spectralmamba.scenes import simulate_scene
    from spectralmamba.scenes.writing import write_labels, write_scene

    scene, labels = simulate_scene(rows=rows, columns=columns, bands=bands, classes=classes, seed=seed)
    folder = prepare_folder(out, overwrite=True)
    console.print(f"Scene: {write_scene(scene, folder / 'scene.tif')}")
    console.print(f"Labels: {write_labels(labels, folder / 'labels.tif')}")


@contextmanager
def _training_bar(steps: int) -> Iterator[Callable[[Progress], None] | None]:
    """Show step, loss, rate and the time left; nothing where the output is no terminal."""
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:.1f} steps/s"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("train", total=steps, loss=float("nan"), speed=0.0)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.step, loss=progress.loss, speed=bar.tasks[0].speed or 0.0)

        yield show


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show pixels done and the time left; nothing where the output is no terminal."""
    if not console.is_terminal:
        yield None
        return
    from rich.progress import Progress as Bar

    with Bar(console=console) as bar:
        task = bar.add_task(name)
        yield lambda done, total: bar.update(task, completed=done, total=total)
