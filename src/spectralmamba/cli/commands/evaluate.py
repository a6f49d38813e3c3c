"""`spectralmamba evaluate`: scores of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from spectralmamba.cli.options import (
    AllowMissingRange,
    AllTouched,
    BandAxis,
    Classes,
    Device,
    Drop,
    Format,
    Keep,
    LabelColumn,
    LabelFile,
    LabelLayer,
    LabelVariable,
    Merge,
    ModelFile,
    PointRadius,
    SceneFile,
    Shrink,
    Variable,
    WaterBands,
    opening_options,
)
from spectralmamba.cli.prepare import open_labels_as_trained
from spectralmamba.cli.show import adapted_aloud, console, print_scores, split_in_words
from spectralmamba.errors import OutputError


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
    format: Format = None,
    keep: Keep = None,
    water_bands: WaterBands = False,
    label_variable: LabelVariable = None,
    label_column: LabelColumn = None,
    layer: LabelLayer = None,
    allow_missing_range: AllowMissingRange = False,
    all_touched: AllTouched = False,
    shrink: Shrink = 0.0,
    point_radius: PointRadius = 0.0,
    classes: Classes = None,
    merge: Merge = None,
    drop: Drop = None,
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
    opened = adapted_aloud(classifier, open_scene(scene, **opening_options(options)), allow_missing_range)
    ids = open_labels_as_trained(options, opened, classifier)
    split = None if all_labels else split_beside(model, ids)
    if split is None:
        why = "" if all_labels else ", because there is no split.tif beside the classifier"
        console.print(
            f"Scored on all {int((ids > 0).sum())} labelled pixels{why}. If some of them trained this classifier, the scores "
            "flatter it."
        )
    else:
        console.print(split_in_words(split, classifier.patch))
        console.print(
            f"Scored on the {int(split.test.sum())} test pixels of {escape(str(model.parent / 'split.tif'))}."
        )
    scores = evaluate_map(classifier.predict(opened), ids, where=None if split is None else split.test)
    print_scores(scores)
    if out is not None:
        write_json(out, scores.to_dict() | {"split": None if split is None else split.record})
