"""The command line: words only. It parses, calls and prints."""

from __future__ import annotations

import atexit
import difflib
import errno
import gc
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
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from spectralmamba import __version__
from spectralmamba.errors import (
    LabelError,
    OutputError,
    SettingsError,
    SpectralMambaError,
    SplitError,
    TrainingInterrupted,
)

if TYPE_CHECKING:
    import xarray as xr

    from spectralmamba.classifier import Classifier
    from spectralmamba.evaluation import Scores
    from spectralmamba.settings import Settings
    from spectralmamba.splits import Split
    from spectralmamba.training import Progress

USER_ERROR, DEFECT, INTERRUPTED = 2, 1, 130


class _Interrupted(Exception):
    """Ctrl-C outside of training."""


class _Commands(TyperGroup):
    """Hides Ctrl-C from typer, whose versions leave with different exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error


app = typer.Typer(
    name="spectralmamba",
    cls=_Commands,
    help="Tell what each pixel of a hyperspectral scene is: from a scene and a few labels to a map and its accuracy.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True, emoji=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

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
LabelColumn = Annotated[str | None, typer.Option(help="The column of a vector file that holds the class.")]
LabelLayer = Annotated[str | None, typer.Option(help="The labels' layer in a vector file that has several.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.")]


def main() -> None:
    """Run the command line; leave with 2 for a mistake that the user can mend, 1 for a defect of the program."""
    # Imports make many objects and no garbage; searching them for cycles, again and again and at the end, takes 0.25 s.
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)
    try:
        app(standalone_mode=True)
    except TrainingInterrupted as error:
        errors.print(f"[yellow]Stopped:[/yellow] {escape(str(error))}")
        sys.exit(INTERRUPTED)
    except SpectralMambaError as error:
        errors.print(f"[red]Error:[/red] {escape(str(error))}")
        sys.exit(USER_ERROR)
    except (_Interrupted, KeyboardInterrupt):
        errors.print("[yellow]Stopped.[/yellow]")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            errors.print(f"[red]Error:[/red] {escape(_no_space(error))}")
            sys.exit(USER_ERROR)
        traceback.print_exc()
        errors.print(
            "[red]This is a defect of spectralmamba, not a mistake of yours.[/red] Please report it with the lines above."
        )
        sys.exit(DEFECT)


def _no_space(error: OSError) -> str:
    problem = f"no space left to write here ({error.strerror})"
    return str(OutputError(problem, file=error.filename, remedy="Free some space or choose another folder with --out."))


def _print_version(asked: bool) -> None:
    if asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def info(
    scene: SceneFile,
    labels: Annotated[
        Path | None, typer.Argument(help="Labels to count: class raster or vectors.", show_default=False)
    ] = None,
    variable: Variable = None,
    band_axis: BandAxis = None,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what a scene and its labels hold: size, bands, wavelengths, bad bands, nodata, values, classes."""
    if labels is None:
        _refuse_label_options(label_variable, label_column, layer)
    from spectralmamba.scenes import open_scene
    from spectralmamba.scenes.describe import describe_scene

    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    ids = None
    if labels is not None:
        from spectralmamba.scenes import open_labels

        ids = open_labels(labels, opened, variable=label_variable, column=label_column, layer=layer)
    description = describe_scene(opened, ids)
    if json:
        import json as json_module

        print(json_module.dumps(description.to_dict(), indent=1))
        return
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(description.to_dict()):
        facts.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(facts)
    if description.classes is not None:
        _print_classes(description.classes)


def _refuse_label_options(variable: str | None, column: str | None, layer: str | None) -> None:
    named = {"--label-variable": variable, "--label-column": column, "--layer": layer}
    given = [option for option, value in named.items() if value is not None]
    if given:
        raise LabelError(
            f"{' and '.join(given)} without labels", expected="the label file after the scene", remedy="Name the file."
        )


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
        table.add_row(f"[{entry.color}]■[/] {entry.id}", escape(entry.name), str(entry.pixels))
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
            help="How labels are divided into training and test pixels: random; or apart in space: blocks, regions (whole "
            "fields), columns, rows; or masks (given); or none (all labels train, nothing is scored)."
        ),
    ] = "random",
    per_class: Annotated[
        int | None,
        typer.Option(help="Training pixels of each class (not with masks).", show_default="10 for random, else all"),
    ] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Instead of --per-class, the share of each class that trains (random).")
    ] = None,
    train_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the labels (blocks, regions) or of the width or height (columns, rows) that trains.",
            show_default="0.5",
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(help="Width of a block in pixels (blocks).", show_default="by the scene's size, up to 16"),
    ] = None,
    boundary: Annotated[
        int | None,
        typer.Option(help="First column or row that tests (columns, rows).", show_default="by --train-fraction"),
    ] = None,
    buffer: Annotated[
        int | None,
        typer.Option(
            help="Pixels left out between training and test areas (blocks, regions, columns, rows).",
            show_default="the patch's reach",
        ),
    ] = None,
    train_mask: Annotated[Path | None, typer.Option(help="Raster that is not 0 where labels train (masks).")] = None,
    test_mask: Annotated[Path | None, typer.Option(help="Raster that is not 0 where labels test (masks).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split and training.", min=0, show_default="0")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several seeds, such as 0,1,2: a folder for each, and their mean ± sd.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Network; `spectralmamba models` lists them.", show_default="spectral_mamba"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="The network's preset: default, paper.", show_default="default")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(help="Odd width of the neighbourhood in pixels; 1 is pixelwise.", show_default="7")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="1000")] = None,
    class_balanced: Annotated[
        bool, typer.Option("--class-balanced", help="Draw every class equally often in training.")
    ] = False,
    settings: Annotated[
        Path | None, typer.Option(help="TOML file of settings, as a run keeps in settings.toml; options go before it.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One more setting of settings.toml, name=value, such as noise=0.3 or model_options.piece=4; may be given "
            "several times.",
        ),
    ] = None,
    variable: Variable = None,
    band_axis: BandAxis = None,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the results in the folder first; other files stay.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in the folder.")] = False,
) -> None:
    """Train a classifier and keep it with its split, settings and log in a folder."""
    for run in _runs(locals()):
        run.train()
        _say_files(Classifier=run.run.model)


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
        _say_files(Map=files.classes, Report=report_file)
    if options["seeds"] is not None:
        from spectralmamba.runs import write_summary

        summary_file = write_summary(folder, scores)
        console.rule("all seeds")
        _print_summary(scores)
        _say_files(Report=summary_file)


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
    return escape(split.with_patch(patch).summary())


def _say_files(**files: Path) -> None:
    for what, file in files.items():
        console.print(f"{what}: {escape(str(file))}")


def _labels(options: dict[str, Any], scene: xr.DataArray) -> xr.DataArray:
    """Open the labels and say what the user should know of them."""
    from spectralmamba.scenes import open_labels

    labels = open_labels(
        options["labels"],
        scene,
        variable=options["label_variable"],
        column=options["label_column"],
        layer=options["layer"],
    )
    for name, count in labels.attrs["report"].items():
        if count:
            console.print(f"Labels left out, {name.replace('_', ' ')}: {count}")
    for note in labels.attrs["notes"]:
        console.print(f"Note: {escape(note)}")
    return labels


def _runs(options: dict[str, Any], scored: bool = False) -> Iterator[_PreparedRun]:
    """Check everything that can be wrong, then make one folder a seed."""
    settings = _settings(options)
    seeds = _seeds(options, settings)
    _check_split_options(options, scored)
    if options["overwrite"] and options["resume"]:
        raise OutputError("--overwrite and --resume exclude each other", remedy="Give one of them.")
    from spectralmamba.scenes import open_scene

    scene = open_scene(options["scene"], variable=options["variable"], band_axis=options["band_axis"])
    _check_patch(settings.patch, scene)
    labels = _labels(options, scene)
    splits = {seed: _split(options, scene, labels, seed, settings.patch) for seed in seeds}
    from spectralmamba.classifier import build_network, find_device
    from spectralmamba.runs import Run, prepare_folder

    find_device(options["device"])
    network = {"name": settings.model, "patch": settings.patch, "preset": settings.preset}
    build_network(network | {"options": settings.model_options}, bands=int(scene["good"].values.sum()), classes=2)
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
    model_options = dict(settings.model_options)
    for text in options["setting"] or []:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise SettingsError(
                "--set takes name=value",
                found=repr(text),
                remedy="Write it like --set noise=0.3 or model_options.piece=4.",
            )
        group, dot, option = name.partition(".")
        if not dot:
            changes[name] = _toml_value(value)
        elif group == "model_options" and option:
            model_options[option] = _toml_value(value)
        else:
            raise SettingsError(f"unknown setting {name!r}", expected="a name without dot, or model_options.name")
    return settings.replace(**{"model_options": model_options} | changes)


def _toml_value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _seeds(options: dict[str, Any], settings: Settings) -> list[int]:
    if options["seeds"] is None:
        return [settings.seed if options["seed"] is None else options["seed"]]
    if options["seed"] is not None:
        raise SettingsError("--seed and --seeds exclude each other", remedy="Give one of them.")
    try:
        seeds = [int(part) for part in options["seeds"].split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise SettingsError(
            "--seeds takes different whole numbers", found=repr(options["seeds"]), expected="a list like 0,1,2,3,4"
        )
    return seeds


def _check_patch(patch: int, scene: xr.DataArray) -> None:
    rows, columns = scene.sizes["y"], scene.sizes["x"]
    if patch > max(rows, columns):
        raise SettingsError(
            "the patch is wider than the scene",
            file=scene.attrs["source"],
            found=f"a patch of {patch} × {patch} in a scene of {rows} × {columns} pixels",
            expected=f"at most {max(rows, columns)}",
            remedy="Choose a smaller odd --patch; 1 is pixelwise.",
        )


_USUAL_PER_CLASS = 10
_APART = ("per_class", "train_fraction", "buffer")
_SPLIT_OPTIONS = {
    "random": ("per_class", "fraction"),
    "blocks": (*_APART, "block_size"),
    "regions": _APART,
    "columns": (*_APART, "boundary"),
    "rows": (*_APART, "boundary"),
    "masks": ("train_mask", "test_mask"),
    "none": (),
}


def _check_split_options(options: dict[str, Any], scored: bool) -> None:
    """Refuse what contradicts itself, and options that the split would not read."""
    split = options["split"]
    if split not in _SPLIT_OPTIONS:
        close = difflib.get_close_matches(split, _SPLIT_OPTIONS, n=1)
        raise SplitError(
            "unknown split",
            found=repr(split),
            expected=", ".join(_SPLIT_OPTIONS),
            remedy=f"Did you mean {close[0]}?" if close else "Choose one of these with --split.",
        )
    if scored and split == "none":
        raise SplitError(
            "nothing is left to score with --split none", remedy="Use `spectralmamba train`, then `spectralmamba map`."
        )
    taken = _SPLIT_OPTIONS[split]
    for name in sorted({name for names in _SPLIT_OPTIONS.values() for name in names} - set(taken)):
        if options[name] is not None:
            goes_with = ", ".join(method for method, names in _SPLIT_OPTIONS.items() if name in names)
            raise SplitError(
                f"{_flag(name)} does not go with --split {split}",
                expected=f"{_flag(name)} with --split {goes_with}",
                remedy=f"With --split {split} give {', '.join(map(_flag, taken)) or 'none of these options'}.",
            )
    missing = [_flag(name) for name in _SPLIT_OPTIONS["masks"] if split == "masks" and options[name] is None]
    if missing:
        raise SplitError(
            "--split masks takes two rasters, of training and of test pixels", remedy=f"Add {' and '.join(missing)}."
        )
    if options["per_class"] is not None and options["fraction"] is not None:
        raise SplitError("--per-class and --fraction exclude each other", remedy="Give one of them.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _split(options: dict[str, Any], scene: xr.DataArray, labels: xr.DataArray, seed: int, patch: int) -> Split | None:
    from spectralmamba.scenes import open_labels
    from spectralmamba.splits import split_disjoint, split_masks, split_random

    method = options["split"]
    if method == "none":
        _check_classes(labels)
        return None
    if method == "masks":
        train_mask, test_mask = (open_labels(options[name], scene) for name in ("train_mask", "test_mask"))
        return split_masks(train_mask, test_mask, labels=labels, patch=patch)
    given = {name: options[name] for name in _SPLIT_OPTIONS[method] if options[name] is not None}
    if method == "random":
        return split_random(labels, **given or {"per_class": _USUAL_PER_CLASS}, seed=seed, patch=patch)
    return split_disjoint(labels, method=method, seed=seed, patch=patch, **given)


def _check_classes(labels: xr.DataArray) -> None:
    names = labels.attrs["class_names"]
    if len(names) < 2:
        raise LabelError(
            "all labels are of one class",
            file=labels.attrs["source"],
            found=", ".join(names.values()),
            expected="at least two classes",
            remedy="Label a second class.",
        )


@app.command()
def evaluate(
    model: ModelFile,
    scene: SceneFile,
    labels: LabelFile,
    all_labels: Annotated[
        bool,
        typer.Option(
            "--all", help="Score on all labels, not only on the test pixels of the split.tif beside the classifier."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file, too.")] = None,
    variable: Variable = None,
    band_axis: BandAxis = None,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    device: Device = "auto",
) -> None:
    """Score a classifier on labels: overall and average accuracy, kappa, and each class."""
    options = locals()
    if out is not None and not out.parent.is_dir():
        raise OutputError("the output folder does not exist", file=out.parent, remedy="Create it first.")
    from spectralmamba.classifier import Classifier
    from spectralmamba.evaluation import evaluate as evaluate_map
    from spectralmamba.files import write_json
    from spectralmamba.runs import split_beside
    from spectralmamba.scenes import open_scene

    classifier = Classifier.load(model, device)
    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    classifier.check_scene(opened)
    ids = _labels(options, opened)
    split = None if all_labels else split_beside(model, ids)
    if split is None:
        why = "" if all_labels else ", because there is no split.tif beside the classifier"
        console.print(
            f"Scored on all {int((ids > 0).sum())} labelled pixels{why}. If some of them trained this classifier, the scores "
            "flatter it."
        )
    else:
        console.print(_summary(split, classifier.patch))
        console.print(
            f"Scored on the {int(split.test.sum())} test pixels of {escape(str(model.parent / 'split.tif'))}."
        )
    scores = evaluate_map(classifier.predict(opened), ids, where=None if split is None else split.test)
    _print_scores(scores)
    if out is not None:
        write_json(out, scores.to_dict() | {"split": None if split is None else split.record})


_SCORES = {
    "overall_accuracy": "overall accuracy",
    "average_accuracy": "average accuracy",
    "kappa": "kappa",
    "macro_f1": "macro F1",
}


def _print_summary(scores: dict[int, Scores]) -> None:
    from spectralmamba.evaluation import summarize

    found = summarize(list(scores.values()), list(scores))
    for key, name in _SCORES.items():
        console.print(f"{name:<17} {_number(found[key]['mean'])} ± {_number(found[key]['sd'])}")


def _print_scores(scores: Scores) -> None:
    found = scores.to_dict()
    for key, name in _SCORES.items():
        interval = found["intervals"].get(key)
        spread = f"  ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        console.print(f"{name:<17} {_number(found[key])}{spread}")
    if found["unclassified"]:
        console.print(f"{'unclassified':<17} {found['unclassified']} pixels, counted as wrong")
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files of that name.")] = False,
) -> None:
    """Classify a whole scene and write the map as a cloud-optimised GeoTIFF."""
    from spectralmamba.classifier import Classifier
    from spectralmamba.mapping import map_scene
    from spectralmamba.scenes import open_scene

    confidence = out.with_name(f"{out.stem}_confidence{out.suffix}")
    for file in (out, confidence):
        if file.exists() and not overwrite:
            raise OutputError("this file exists", file=file, remedy="Choose another --out or add --overwrite.")
    classifier = Classifier.load(model, device)
    opened = open_scene(scene, variable=variable, band_axis=band_axis)
    with _bar("map") as advance:
        files = map_scene(classifier, opened, out, tile=tile, on_tile=advance)
    _say_files(Map=files.classes, Confidence=files.confidence)
    if not files.georeferenced:
        console.print("The scene has no georeference, so the map has none.")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several seeds.", show_default=False)],
) -> None:
    """Write a run's report again, from what its folder holds."""
    from spectralmamba.report import write_report, write_summary_report

    write = write_summary_report if (folder / "summary.json").is_file() else write_report
    _say_files(Report=write(folder))


@app.command()
def models(
    bands: Annotated[int, typer.Option(help="Bands of a spectrum to count for.", min=1)] = 145,
    classes: Annotated[int, typer.Option(help="Classes to count for.", min=2)] = 14,
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
    rows: Annotated[int, typer.Option(help="Rows of the scene.", min=8)] = 96,
    columns: Annotated[int, typer.Option(help="Columns of the scene.", min=8)] = 96,
    bands: Annotated[int, typer.Option(help="Bands, evenly spaced from 400 to 2500 nm.", min=2)] = 120,
    classes: Annotated[int, typer.Option(help="Classes of land cover.", min=2, max=12)] = 6,
    seed: Annotated[int, typer.Option(help="Seed; the same one gives the same scene.", min=0)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a scene and labels in the folder.")
    ] = False,
) -> None:
    """Write a simulated scene and its labels, to try things out."""
    from spectralmamba.scenes import simulate_scene
    from spectralmamba.scenes.writing import write_labels, write_scene

    scene_file, label_file = out / "scene.tif", out / "labels.tif"
    for file in (scene_file, label_file):
        if file.exists() and not overwrite:
            raise OutputError("this file exists", file=file, remedy="Choose another --out or add --overwrite.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "cannot make the output folder", file=out, found=error.strerror, remedy="Choose another --out."
        ) from error
    scene, labels = simulate_scene(rows=rows, columns=columns, bands=bands, classes=classes, seed=seed)
    _say_files(Scene=write_scene(scene, scene_file), Labels=write_labels(labels, label_file))


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
