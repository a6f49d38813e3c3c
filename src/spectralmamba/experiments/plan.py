"""A plan of experiments: a TOML file of data sets, splits, models and seeds → the runs that it stands for."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
import itertools
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from spectralmamba.catalog import dataset
from spectralmamba.errors import DataError, ModelError, PlanError, SettingsError
from spectralmamba.experiments.published import names
from spectralmamba.experiments.simple import FEATURES, KINDS, NORMALISATIONS, SHARP, Simple
from spectralmamba.models import list_models, list_options, list_presets
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.scenes import simulate_scene
from spectralmamba.settings import Settings
from spectralmamba.training.fitting import AUTO

_PLAN_KEYS = ("title", "about", "seeds", "compare", "maps", "data", "split", "model", "settings", "tuning")
_FILE_KEYS = ("scene", "labels", "train_mask", "test_mask")
_DATA_KEYS = ("name", "simulated", *_FILE_KEYS)
_SPLIT_KEYS = {
    "random": ("per_class", "fraction"),
    "folds": ("folds",),
    "standard": (),
    "blocks": ("per_class", "train_fraction", "buffer", "block_size"),
    "regions": ("per_class", "train_fraction", "buffer"),
    "fields": ("per_class", "train_fraction", "buffer"),
    "columns": ("per_class", "train_fraction", "buffer", "boundary"),
    "rows": ("per_class", "train_fraction", "buffer", "boundary"),
}
DEFAULT_FOLDS = 5
APART = ("blocks", "regions", "fields", "columns", "rows")
_NETWORK_KEYS = ("patch", "preset", "model_options", "settings", "recommended")
_SIMPLE_KEYS = ("features", "window", "normalisation")
_MODEL_KEYS = ("name", "model", "published", "data")
_ELSEWHERE = ("model", "patch", "preset", "model_options", "seed")  # settings that have a place of their own
_COMPARED = ("models", "splits")
SIMULATED = "simulated"


@dataclass(frozen=True)
class Tuning:
    """How networks are tuned.

    Attributes:
        trials: Settings tried, the plan's own first; 0 is no tuning.
        folds: Parts of the training pixels, at most 5, that are left out in turn to score a trial.
        steps: Training steps to choose among.
    """

    trials: int = 0
    folds: int = 3
    steps: tuple[int, ...] = (300, 1000, 3000)


@dataclass(frozen=True)
class DataSpec:
    """A scene with labels.

    Attributes:
        name: As reported; in the catalogue, if it is of kind "catalogue".
        kind: "catalogue", "simulated" or "files".
        arguments: Of `simulate_scene`; or the files.
    """

    name: str
    kind: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class SplitSpec:
    """A way to divide labels.

    Attributes:
        name: As reported.
        method: "random", "folds", "standard", or one of `APART`.
        arguments: Of `split_random`, `split_folds` or `split_disjoint`.
        data: Shell patterns of the data sets that it is for.
    """

    name: str
    method: str
    arguments: dict[str, Any]
    data: tuple[str, ...] = ("*",)


@dataclass(frozen=True)
class ModelSpec:
    """What is trained.

    Attributes:
        name: As reported.
        settings: Of a network, but for the seed; None for a simple classifier.
        simple: The simple classifier; None for a network.
        recommended: Whether `recommend_settings` begins with these settings and chooses for the training pixels.
        published: Name of the published figures to stand beside, if not those of the model itself; empty for none.
        data: Shell patterns of the data sets that it is for.
    """

    name: str
    settings: Settings | None = None
    simple: Simple | None = None
    recommended: bool = False
    published: str | None = None
    data: tuple[str, ...] = ("*",)

    @property
    def kind(self) -> str:
        """Name of the network or of the simple classifier."""
        return self.simple.kind if self.simple is not None else self.network.model

    @property
    def network(self) -> Settings:
        """Settings of a network."""
        assert self.settings is not None, "a simple classifier has none"
        return self.settings

    @property
    def patch(self) -> int:
        """Width of what is classified; a test pixel that has training pixels within it is a leak."""
        return self.simple.width if self.simple is not None else self.network.patch

    @property
    def width(self) -> int:
        """Width of the widest neighbourhood that has a say in training."""
        if self.settings is None:
            return self.patch
        teachers = self.settings.teacher_patch if self.settings.self_training_rounds else 1
        return max(self.settings.patch, teachers)

    def identity(self) -> dict[str, Any]:
        """Return what decides what the model says, whatever it is called."""
        if self.simple is not None:
            return {"simple": asdict(self.simple)}
        return {"settings": self.network.replace(seed=0).to_dict(), "recommended": self.recommended}


@dataclass(frozen=True)
class Run:
    """One training with its test."""

    data: DataSpec
    split: SplitSpec
    model: ModelSpec
    seed: int

    @property
    def cell(self) -> tuple[str, str, str]:
        """Names of data set, split and model."""
        return self.data.name, self.split.name, self.model.name

    @property
    def place(self) -> tuple[str, str, str, int]:
        """Names of data set, split and model, and the seed: no other run of a plan has the same."""
        return (*self.cell, self.seed)

    @property
    def label(self) -> str:
        """All names in a line."""
        return f"{' / '.join(self.cell)} / seed {self.seed}"

    def matches(self, pattern: str) -> bool:
        """Tell whether a shell pattern names the data set, or the names of data set, split and model joined by slashes."""
        return any(fnmatch.fnmatchcase(text, pattern) for text in (self.data.name, "/".join(self.cell)))


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        title: A few words.
        about: Sentences on what it shows.
        seeds: Of splits and trainings.
        compare: "models": differences are to the first model of the same split; "splits": to the first split of the same model.
        maps: Whether whole scenes are mapped, rather than test pixels alone.
        tuning: How networks are tuned.
        runs: All runs, in the order of the file.
    """

    title: str
    about: str
    seeds: tuple[int, ...]
    compare: str
    maps: bool
    tuning: Tuning
    runs: tuple[Run, ...]

    def with_seeds(self, seeds: Iterable[int]) -> Plan:
        """Return the same plan with other seeds."""
        chosen = tuple(seeds)
        cells = dict.fromkeys(run.cell for run in self.runs)
        first = {run.cell: run for run in reversed(self.runs)}
        runs = tuple(replace(first[cell], seed=seed) for cell in cells for seed in chosen)
        return replace(self, seeds=chosen, runs=runs)

    def with_trials(self, trials: int) -> Plan:
        """Return the same plan with so many trials of tuning."""
        return replace(self, tuning=replace(self.tuning, trials=trials))


def load_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan.

    Raises:
        PlanError: The file cannot be read or is not TOML; or a key, data set, split, model, option or setting is unknown or out of
            range. The nearest name is suggested.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError("cannot read the plan", file=path, found=error) from error
    except tomllib.TOMLDecodeError as error:
        raise PlanError("this is not valid TOML", file=path, found=error) from error
    try:
        return make_plan(content, title=Path(path).stem, folder=Path(path).parent)
    except PlanError as error:
        raise PlanError(
            error.problem, file=path, found=error.found, expected=error.expected, remedy=error.remedy
        ) from None


def make_plan(content: Mapping[str, Any], *, title: str = "experiment", folder: Path = Path()) -> Plan:
    """Make a plan of what a file says.

    Args:
        content: The file's keys.
        title: Where it has none.
        folder: What the paths in it are relative to.

    Raises:
        PlanError: As `load_plan`.
    """
    _check_keys(content, _PLAN_KEYS, "plan")
    seeds = _seeds(content.get("seeds", [0]))
    compare = _one_of(content.get("compare", "models"), _COMPARED, "compare")
    data = _unique([_data(entry, folder) for entry in _list(content, "data")], "data sets")
    known = [spec.name for spec in data]
    shared = _typed(content, "settings", dict, {})
    models = _unique([spec for entry in _list(content, "model") for spec in _models(entry, shared, known)], "models")
    reach = max(model.width for model in models) // 2
    splits = _unique([spec for entry in _list(content, "split") for spec in _splits(entry, reach, known)], "splits")
    runs = [
        Run(each, split, model, seed)
        for each in data
        for split in splits
        for model in models
        for seed in seeds
        if _is_for(split.data, each) and _is_for(model.data, each)
    ]
    if not runs:
        raise PlanError("the plan holds no run", expected="a data set that has both a split and a model")
    for run in runs:
        _check_standard(run)
    return Plan(
        title=_typed(content, "title", str, title),
        about=_typed(content, "about", str, ""),
        seeds=seeds,
        compare=compare,
        maps=_typed(content, "maps", bool, True),
        tuning=_tuning(_typed(content, "tuning", dict, {})),
        runs=tuple(runs),
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return a sentence that suggests the known name most like a word; None if none is like it."""
    words = list(known)
    close = difflib.get_close_matches(word.lower().replace("_", "-"), [name.replace("_", "-") for name in words], n=1)
    if not close:
        return None
    return f"Did you mean {next(name for name in words if name.replace('_', '-') == close[0])!r}?"


def _check_keys(content: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    names = list(known)
    for key in content:
        if key not in names:
            raise PlanError(
                f"unknown key {key!r} in the {where}",
                expected=" or ".join(names) or "no key",
                remedy=nearest(key, names),
            )


def _typed(content: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = content.get(key, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {dict: "a table", str: "a text", bool: "true or false", int: "a whole number"}
        raise PlanError(f"{key!r} has the wrong type", found=repr(value), expected=names[kind])
    return value


def _one_of(value: Any, known: Iterable[str], what: str) -> Any:
    names = list(known)
    if value not in names:
        raise PlanError(
            f"unknown {what}", found=repr(value), expected=" or ".join(names), remedy=nearest(str(value), names)
        )
    return value


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list) or not value:
        raise PlanError(f"the plan has no {key!r}", found=repr(value), expected=f"one or more [[{key}]]")
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in value)
    if not whole or not value or min(value) < 0 or max(value) >= 2**32 or len(set(value)) < len(value):
        raise PlanError("the seeds cannot be used", found=repr(value), expected="different whole numbers of at least 0")
    return tuple(value)


def _unique(specs: list[Any], what: str) -> list[Any]:
    given = [spec.name for spec in specs]
    for name in given:
        if given.count(name) > 1:
            raise PlanError(f"two {what} have the same name", found=name, remedy='Give them names: name = "…".')
    return specs


def _is_for(patterns: tuple[str, ...], data: DataSpec) -> bool:
    return any(fnmatch.fnmatchcase(data.name, pattern) for pattern in patterns)


def _patterns(entry: Mapping[str, Any], known: list[str]) -> tuple[str, ...]:
    value = entry.get("data", ["*"])
    patterns = tuple([value] if isinstance(value, str) else value)
    for pattern in patterns:
        if not fnmatch.filter(known, str(pattern)):
            raise PlanError(
                "no data set of the plan has this name",
                found=repr(pattern),
                expected=" or ".join(known),
                remedy=nearest(str(pattern), known),
            )
    return patterns


def _data(entry: Any, folder: Path) -> DataSpec:
    entry = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        raise PlanError("this is no data set", found=repr(entry), expected="a name or a table")
    _check_keys(entry, _DATA_KEYS, "data set")
    files = {key: str(folder / _typed(entry, key, str, "")) for key in _FILE_KEYS if key in entry}
    name = _typed(entry, "name", str, SIMULATED if "simulated" in entry else "")
    if "simulated" in entry or (name == SIMULATED and not files):
        return DataSpec(name, SIMULATED, _simulation(entry.get("simulated", {})))
    if files:
        missing = [key for key in ("scene", "labels") if key not in files]
        if missing or not name or ("train_mask" in files) != ("test_mask" in files):
            raise PlanError(
                "a data set of files is not complete",
                found=", ".join(entry),
                expected="name, scene and labels; and train_mask and test_mask, or neither",
            )
        return DataSpec(name, "files", files)
    try:
        dataset(name)
    except DataError as error:
        expected = f"{error.expected} or {SIMULATED}"
        remedy = error.remedy or nearest(name, [SIMULATED])
        raise PlanError(error.problem, found=error.found, expected=expected, remedy=remedy) from None
    return DataSpec(name, "catalogue", {})


def _simulation(arguments: Any) -> dict[str, Any]:
    if not isinstance(arguments, dict):
        raise PlanError("'simulated' has the wrong type", found=repr(arguments), expected="a table")
    parameters = inspect.signature(simulate_scene).parameters
    _check_keys(arguments, parameters, "simulated scene")
    for key, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, (int, float) if key == "noise" else int):
            raise PlanError(
                f"{key!r} of the simulated scene has the wrong type", found=repr(value), expected="a number"
            )
    return {name: arguments.get(name, parameter.default) for name, parameter in parameters.items()}


def _expanded(entry: Mapping[str, Any], keys: Iterable[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the entry for each combination of its lists, and what of it varies."""
    varied = [key for key in keys if isinstance(entry.get(key), list)]
    for key in varied:
        if not entry[key]:
            raise PlanError(f"the list {key!r} is empty", expected="one or more values")
    for values in itertools.product(*(entry[key] for key in varied)):
        chosen = dict(zip(varied, values, strict=True))
        yield {**entry, **chosen}, chosen


def _splits(entry: Any, reach: int, known: list[str]) -> Iterator[SplitSpec]:
    if not isinstance(entry, dict):
        raise PlanError("this is no split", found=repr(entry), expected="a table")
    method = _one_of(entry.get("method"), _SPLIT_KEYS, "split method")
    _check_keys(entry, ("name", "method", "data", *_SPLIT_KEYS[method]), f"split {method!r}")
    patterns = _patterns(entry, known)
    for chosen, varied in _expanded(entry, _SPLIT_KEYS[method]):
        arguments = {key: chosen[key] for key in _SPLIT_KEYS[method] if key in chosen}
        for key, value in arguments.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise PlanError(f"{key!r} of the split has the wrong type", found=repr(value), expected="a number")
        if method == "random" and len(arguments) != 1:
            raise PlanError(
                "the number of training pixels is not clear",
                found=", ".join(arguments) or "neither",
                expected="exactly one of per_class and fraction",
            )
        if method == "folds":
            arguments.setdefault("folds", DEFAULT_FOLDS)
        if method in APART:
            arguments.setdefault("buffer", reach)
        name = chosen.get("name")
        yield SplitSpec(_named(name, varied) or _split_name(method, arguments), method, arguments, patterns)


def _split_name(method: str, arguments: Mapping[str, Any]) -> str:
    words = {
        "per_class": "{} a class",
        "block_size": "of {} pixels",
        "buffer": "buffer {}",
        "boundary": "from {} on",
        "folds": "one of {}",
    }
    words |= {"fraction": "{:g} of each class", "train_fraction": "{:g} train", "folds": "one of {}"}
    parts = [words[key].format(arguments[key]) for key in words if key in arguments]
    return ", ".join([method, *parts])


def _named(name: Any, varied: Mapping[str, Any]) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise PlanError("'name' has the wrong type", found=repr(name), expected="a text")
    return ", ".join([name, *(f"{'P' if key == 'patch' else key} = {value}" for key, value in varied.items())])


def _models(entry: Any, shared: Mapping[str, Any], known: list[str]) -> Iterator[ModelSpec]:
    if not isinstance(entry, dict):
        raise PlanError("this is no model", found=repr(entry), expected="a table")
    kind = _one_of(entry.get("model"), [*list_models(), *SIMPLE_MODELS, AUTO, *KINDS], "model")
    patterns = _patterns(entry, known)
    published = (
        None if entry.get("published") is None else _one_of(entry["published"], ["", *names()], "published figures")
    )
    if kind in KINDS:
        _check_keys(entry, (*_MODEL_KEYS, *_SIMPLE_KEYS), f"model {kind!r}")
        for chosen, varied in _expanded(entry, _SIMPLE_KEYS):
            simple = _simple(kind, chosen)
            name = _named(entry.get("name"), varied) or _simple_name(simple)
            yield ModelSpec(name, simple=simple, published=published, data=patterns)
        return
    _check_keys(entry, (*_MODEL_KEYS, *_NETWORK_KEYS), f"model {kind!r}")
    options = _typed(entry, "model_options", dict, {})
    flat = {**entry, **{f"option {key}": value for key, value in options.items()}}
    for chosen, varied in _expanded(flat, ("patch", "preset", *(f"option {key}" for key in options))):
        settings = _settings(kind, chosen, {key: chosen[f"option {key}"] for key in options}, shared)
        named = {key.removeprefix("option "): value for key, value in varied.items()}
        name = _named(entry.get("name"), named) or _network_name(settings)
        recommended = _typed(entry, "recommended", bool, False)
        yield ModelSpec(name, settings, None, recommended, published, patterns)


def _simple(kind: str, entry: Mapping[str, Any]) -> Simple:
    simple = Simple(
        kind,
        _one_of(entry.get("features", "pixels"), FEATURES, "features"),
        _typed(entry, "window", int, 7),
        _one_of(
            entry.get("normalisation", "standardised"),
            [name for name in NORMALISATIONS if name != SHARP],
            "normalisation",
        ),
    )
    if simple.window < 1 or simple.window % 2 == 0:
        raise PlanError("the window has no centre pixel", found=simple.window, expected="an odd width: 1, 3, 5, …")
    return simple if simple.features == "means" else replace(simple, window=1)


def _simple_name(simple: Simple) -> str:
    kind = {"svm": "SVM", "random_forest": "random forest"}[simple.kind]
    seen = f"{simple.window} × {simple.window} means" if simple.features == "means" else simple.features
    return f"{kind}, {seen}, {simple.normalisation}"


def _network_name(settings: Settings) -> str:
    form = "pixelwise" if settings.patch == 1 else f"P = {settings.patch}"
    preset = [] if settings.preset == "default" else [settings.preset]
    return ", ".join(
        [settings.model, *preset, form, *(f"{key} = {value}" for key, value in settings.model_options.items())]
    )


def _settings(kind: str, entry: Mapping[str, Any], options: dict[str, Any], shared: Mapping[str, Any]) -> Settings:
    own = _typed(entry, "settings", dict, {})
    for key in (*own, *shared):
        if key in _ELSEWHERE:
            raise PlanError(
                f"the setting {key!r} has another place",
                expected="seeds of the plan" if key == "seed" else f"{key} of [[model]], not of its settings",
            )
    known = {entry.name for entry in fields(Settings)} - set(_ELSEWHERE)
    _check_keys({**shared, **own}, sorted(known), "settings")
    if kind in list_models():
        _check_keys(options, list_options(kind), f"model_options of {kind!r}")
        _one_of(entry.get("preset", list_presets(kind)[0]), list_presets(kind), f"preset of {kind}")
    given = {key: entry[key] for key in ("patch", "preset") if key in entry}
    try:
        return Settings.from_dict({"model": kind, **shared, **own, **given, "model_options": options})
    except (SettingsError, ModelError) as error:
        raise PlanError(error.problem, found=error.found, expected=error.expected, remedy=error.remedy) from None


def _tuning(entry: Mapping[str, Any]) -> Tuning:
    _check_keys(entry, [field.name for field in fields(Tuning)], "tuning")
    tuning = Tuning(**{**entry, "steps": tuple(entry.get("steps", Tuning.steps))})
    whole = all(
        isinstance(value, int) and not isinstance(value, bool) for value in (tuning.trials, tuning.folds, *tuning.steps)
    )
    if not whole or tuning.trials < 0 or not 1 <= tuning.folds <= 5 or min(tuning.steps, default=0) < 1:
        raise PlanError(
            "the tuning is out of range",
            found=dict(entry),
            expected="trials of at least 0, 1 to 5 folds, steps above 0",
        )
    return tuning


def _check_standard(run: Run) -> None:
    if run.split.method != "standard":
        return
    has = "train_mask" in run.data.arguments if run.data.kind == "files" else False
    if run.data.kind == "catalogue":
        has = dataset(run.data.name).split is not None
    if not has:
        raise PlanError(
            f"{run.data.name} has no standard split",
            found=f"the split {run.split.name!r}",
            remedy='Say by `data = ["…"]` which data sets a split is for.',
        )
