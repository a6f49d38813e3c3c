"""The options of --split: which go together, and the split that they ask for."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from spectralmamba.cli.show import console
from spectralmamba.errors import LabelError, SplitError

if TYPE_CHECKING:
    import xarray as xr

    from spectralmamba.splits import Split

_USUAL = "random"
_USUAL_PER_CLASS = 10
_APART = ("per_class", "train_fraction", "buffer")
_SPLIT_OPTIONS = {
    "random": ("per_class", "fraction"),
    "blocks": (*_APART, "block_size"),
    "regions": _APART,
    "fields": _APART,
    "columns": (*_APART, "boundary"),
    "rows": (*_APART, "boundary"),
    "masks": ("train_mask", "test_mask"),
    "none": (),
}


def check_split_options(options: dict[str, Any], scored: bool) -> None:
    """Refuse what contradicts itself, and options that the split would not read."""
    from spectralmamba.scenes.vectors import is_vector

    split = options["split"]
    if split is None and is_vector(options["labels"]):  # with_usual_split chooses when they are open, and asks again
        return
    split = _USUAL if split is None else split
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


def with_usual_split(options: dict[str, Any], labels: xr.DataArray) -> dict[str, Any]:
    """Return the options with the split that is usual for the labels where none is asked for; say where it is not random."""
    from spectralmamba.splits import has_wide_fields

    if options["split"] is not None:
        return options
    chosen = "fields" if options["fraction"] is None and has_wide_fields(labels) else _USUAL
    check_split_options(options | {"split": chosen}, scored=False)
    if chosen == "fields":
        console.print(
            "Each polygon or wide point trains or tests as a whole (--split fields); --split random would draw training pixels "
            "in all of them."
        )
    return options | {"split": chosen}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def make_split(
    options: dict[str, Any], scene: xr.DataArray, labels: xr.DataArray, seed: int, patch: int
) -> Split | None:
    """Divide the labels as the options say; None where all of them train."""
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
