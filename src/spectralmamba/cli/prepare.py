"""From the options of `train` and `run` to runs that can start: all is checked before a folder is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from spectralmamba.cli.options import given_label_options, label_options, opening_options
from spectralmamba.cli.show import console, split_in_words, training_bar
from spectralmamba.cli.split_options import check_split_options, make_split, with_usual_split
from spectralmamba.errors import OutputError, SettingsError

if TYPE_CHECKING:
    import xarray as xr

    from spectralmamba.classifier import Classifier
    from spectralmamba.evaluation import Scores
    from spectralmamba.gis import GisFiles
    from spectralmamba.settings import Settings
    from spectralmamba.splits import Split
    from spectralmamba.training import Progress


@dataclass(frozen=True)
class PreparedRun:
    """Everything one seed's training needs."""

    run: Any
    scene: xr.DataArray
    labels: xr.DataArray
    split: Split | None
    settings: Settings

    def evaluate(self, classifier: Classifier) -> Scores:
        """Score the classifier on the split's test pixels."""
        assert self.split is not None  # a run that is scored has been refused without a split
        return self.run.evaluate(classifier, self.scene, self.labels, self.split)

    def explain(self, classifier: Classifier) -> None:
        """Keep for the viewer what decided in the split's test pixels, and values of all pixels."""
        assert self.split is not None
        self.run.explain(classifier, self.scene, self.labels, self.split)


def trained_runs(
    options: dict[str, Any], scored: bool = False, gis: GisFiles | None = None
) -> Iterator[tuple[PreparedRun, Classifier]]:
    """Prepare runs and train them: one when its turn comes, or on a GPU all of them together before the first is returned."""
    from spectralmamba.classifier import find_device
    from spectralmamba.models.committee import SIMPLE_MODELS
    from spectralmamba.runs import train_runs
    from spectralmamba.training.fitting import AUTO

    runs = _prepared_runs(options, scored, gis)
    together = len(runs) > 1 and find_device(options["device"]).type == "cuda"
    for part in [runs] if together else [[run] for run in runs]:
        first = part[0]
        if together:
            console.print(f"{len(part)} seeds train together.")
        elif len(runs) > 1:
            console.rule(f"seed {first.settings.seed}")
        if not together:
            console.print(split_in_words(first.split, first.settings.patch))
        if first.settings.model == AUTO and not all(run.run.model.is_file() for run in part):
            console.print(
                "Classifiers are compared on training labels left out in turn, before the one chosen is trained."
            )
        stepwise = first.settings.model not in SIMPLE_MODELS
        with training_bar(first.settings.steps) if stepwise else nullcontext() as show:
            classifiers = train_runs(
                {run.settings.seed: run.run for run in part},
                first.scene,
                first.labels,
                {run.settings.seed: run.split for run in part},
                first.settings,
                device=options["device"],
                resume=options["resume"],
                on_step=show and _without_seed(show),
            )
        for run in part:
            if together:
                console.rule(f"seed {run.settings.seed}")
                console.print(split_in_words(run.split, run.settings.patch))
            classifier = classifiers[run.settings.seed]
            if choice := classifier.card.get("choice"):
                console.print(f"Chosen: {escape(choice['reason'])}")
            yield run, classifier


def _without_seed(show: Callable[[Progress], None]) -> Callable[[int, Progress], None]:
    return lambda _, progress: show(progress)


def _prepared_runs(options: dict[str, Any], scored: bool, gis: GisFiles | None) -> list[PreparedRun]:
    """Check everything that can be wrong, then make one folder a seed."""
    settings = _settings(options, _base(options))
    seeds = _seeds(options, settings)
    check_split_options(options, scored)
    if options["overwrite"] and options["resume"]:
        raise OutputError("--overwrite and --resume exclude each other", remedy="Give one of them.")
    from spectralmamba.scenes import open_scene

    scene = open_scene(options["scene"], **opening_options(options))
    _check_patch(settings.patch, scene)
    if gis is not None:
        from spectralmamba.gis.beside import check_gis_files

        check_gis_files(gis, options["out"] / "map.tif", scene, ortho=False)
    labels = open_labels_aloud(options, scene)
    options = with_usual_split(options, labels)
    splits = {seed: make_split(options, scene, labels, seed, settings.patch) for seed in seeds}
    if options["settings"] is None:
        patch, settings = settings.patch, _recommended(options, scene, labels, splits[seeds[0]])
        if settings.patch != patch:
            splits = {seed: make_split(options, scene, labels, seed, settings.patch) for seed in seeds}
    from spectralmamba.classifier import build_network, find_device
    from spectralmamba.models.committee import SIMPLE_MODELS
    from spectralmamba.runs import Run, prepare_folder
    from spectralmamba.training.choice import FIRST_CHOICE
    from spectralmamba.training.fitting import AUTO, check_model
    from spectralmamba.training.task import describe_model

    find_device(options["device"])
    check_model(settings)
    if settings.model not in SIMPLE_MODELS:
        network = settings.replace(model=FIRST_CHOICE) if settings.model == AUTO else settings
        build_network(describe_model(network), bands=int(scene["good"].values.sum()), classes=2)
    folder = prepare_folder(options["out"], overwrite=options["overwrite"], resume=options["resume"])
    places = {seed: folder for seed in seeds}
    if options["seeds"] is not None:
        places = {
            seed: prepare_folder(folder / f"seed-{seed}", overwrite=options["overwrite"], resume=options["resume"])
            for seed in seeds
        }
    return [PreparedRun(Run(places[seed]), scene, labels, splits[seed], settings.replace(seed=seed)) for seed in seeds]


def _base(options: dict[str, Any]) -> Settings:
    """Return what options change: the settings of a file, or the defaults."""
    from spectralmamba.settings import Settings

    return Settings() if options["settings"] is None else Settings.load(options["settings"])


def _recommended(options: dict[str, Any], scene: xr.DataArray, labels: xr.DataArray, split: Split | None) -> Settings:
    """Return what is recommended for the scene, changed by the options, and say why."""
    from spectralmamba.models.committee import SIMPLE_MODELS
    from spectralmamba.training import recommend_settings

    recommendation = recommend_settings(scene, labels, split)
    settings = _settings(options, recommendation.settings)
    # What follows the patch is about how a network is trained.
    for reason in recommendation.reasons[: 1 if settings.model in SIMPLE_MODELS else None]:
        console.print(f"Recommended: {escape(reason)}")
    return settings


def _settings(options: dict[str, Any], settings: Settings) -> Settings:
    """Change settings as the options say."""
    changes: dict[str, Any] = {
        name: options[name]
        for name in ("model", "preset", "patch", "steps", "rare_classes")
        if options[name] is not None
    }
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


def open_labels_aloud(options: dict[str, Any], scene: xr.DataArray) -> xr.DataArray:
    """Open the labels and say what the user should know of them."""
    from spectralmamba.scenes import open_labels

    return _said(open_labels(options["labels"], scene, **label_options(options)))


def open_labels_as_trained(options: dict[str, Any], scene: xr.DataArray, classifier: Classifier) -> xr.DataArray:
    """Open labels that a classifier is scored on, and say what the user should know of them.

    Without options for labels, the file that it was trained with is opened as it was then. Classes given as text are those of
    that name that the classifier knows, for their ids follow from a file's own names otherwise.
    """
    from spectralmamba.scenes import open_labels
    from spectralmamba.scenes.class_tables import ClassTable
    from spectralmamba.scenes.vectors import is_vector

    file = options["labels"]
    arguments: dict[str, Any]
    kept = dict(classifier.card.get("labels") or {})
    if kept.pop("file", None) != file.name or given_label_options(options):
        arguments = label_options(options)
    else:
        arguments = kept | {"classes": ClassTable.of_classes(kept["classes"]) if "classes" in kept else None}
        if kept:
            console.print(f"The labels are opened as in training: {escape(_opened_in_words(kept))}.")
    if arguments["classes"] is None and is_vector(file):
        arguments["classes"] = ClassTable.of_classes(classifier.card["classes"], "the classifier")
    return _said(open_labels(file, scene, **arguments))


def _opened_in_words(arguments: dict[str, Any]) -> str:
    parts = []
    for name, value in arguments.items():
        words = name.replace("_", " ")
        if name == "classes":
            words = "names and ids of its class table"
        elif name == "merge":
            words = "; ".join(f"merge {','.join(map(str, listed))}={new}" for new, listed in value.items())
        elif value is not True:
            words += f" {','.join(map(str, value)) if isinstance(value, list) else value}"
        parts.append(words)
    return ", ".join(parts)


def _said(labels: xr.DataArray) -> xr.DataArray:
    for name, count in labels.attrs["report"].items():
        if count:
            console.print(f"Labels left out, {name.replace('_', ' ')}: {count}")
    for note in labels.attrs["notes"]:
        console.print(f"Note: {escape(note)}")
    return labels
