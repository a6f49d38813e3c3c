"""The model card of a classifier: Markdown with YAML front matter, as the Hugging Face Hub reads it, made from its own card.

The front matter's fields are those of https://huggingface.co/docs/hub/model-cards. Values are written as JSON, which YAML holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from spectralmamba.errors import ClassifierError
from spectralmamba.models.committee import SIMPLE_MODELS
from spectralmamba.splits.split import record_in_words

_TAGS = ("hyperspectral", "remote-sensing", "earth-observation", "land-cover", "image-segmentation")
_SCORES = {
    "overall_accuracy": ("Overall accuracy", "accuracy"),
    "average_accuracy": ("Average accuracy", "average_accuracy"),
    "kappa": ("Cohen's kappa", "kappa"),
    "macro_f1": ("Macro F1", "f1"),
}
"""Title and type of each score."""

_CITATION = """\
```bibtex
@article{yao2024spectralmamba,
  title = {SpectralMamba: Efficient Mamba for Hyperspectral Image Classification},
  author = {Yao, Jing and Hong, Danfeng and Li, Chenyu and Chanussot, Jocelyn},
  journal = {arXiv preprint arXiv:2404.08489},
  year = {2024}
}
```"""


def model_card(card: dict[str, Any], *, license: str | None = None, repository: str | None = None) -> str:
    """Return a classifier's model card in Markdown.

    Args:
        card: `Classifier.card`.
        license: Licence as the Hub calls it, such as "cc-by-4.0". If None the front matter has none, and the text says so.
        repository: "owner/name" that the card lies in, for the examples; None for a file.

    Raises:
        ClassifierError: The card lacks something that is told, or has it in another form.
    """
    try:
        sections = {
            None: _summary(card, license),
            "Classes": _classes(card),
            "Bands": _bands(card),
            "Input": _input(card),
            "Scores": _scores(card),
            "How to use it": _use(repository),
            "Limits": _limits(card),
            "How it was trained": _training(card),
            "Versions": [", ".join(f"{name} {_plain(version)}" for name, version in card["versions"].items()) + "."],
            "Citation": [_CITATION],
        }
        front = "\n".join(
            f"{key}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}" for key, value in _front(card, license)
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ClassifierError(
            "the card lacks what a model card tells", found=f"{type(error).__name__} {error}", remedy="Train again."
        ) from error
    parts = [f"---\n{front}\n---", f"# {_title(card)}"]
    for heading, paragraphs in sections.items():
        parts += ([] if heading is None else [f"## {heading}"]) + paragraphs
    return "\n\n".join(parts) + "\n"


def _front(card: dict[str, Any], license: str | None) -> Iterator[tuple[str, Any]]:
    """Yield the fields of the front matter."""
    if license is not None:
        yield "license", license
    yield "library_name", "spectralmamba"
    yield "tags", [*_TAGS, card["model"]["name"].replace("_", "-")]
    scores = card["scores"]
    if scores is None:
        return
    metrics = [
        {"type": kind, "name": title, "value": scores[key]}
        for key, (title, kind) in _SCORES.items()
        if scores[key] is not None
    ]
    yield "metrics", [metric["type"] for metric in metrics]
    result = {
        "task": {"type": "image-segmentation", "name": "Classification of pixels"},
        "dataset": {
            "type": "other",
            "name": _plain(card["data"]["file"]),
            "split": f"{card['split']['method']}, {scores['test_pixels']} test pixels",
        },
        "metrics": metrics,
    }
    yield "model-index", [{"name": _title(card), "results": [result]}]


def _title(card: dict[str, Any]) -> str:
    return f"{card['model']['name']} of {_plain(card['data']['file'])}"


def _summary(card: dict[str, Any], license: str | None) -> list[str]:
    patch, classes = card["model"]["patch"], len(card["classes"])
    sees = "its spectrum alone" if patch == 1 else f"the {patch} × {patch} pixels around it"
    stated = "not stated by who made it" if license is None else f"`{license}`"
    return [
        f"A classifier of hyperspectral scenes: it tells which of {classes} classes each pixel is, from {sees}. "
        f"{_decides(card['model'])} It is one safetensors file of the Python package spectralmamba.",
        f"Licence: {stated}.",
    ]


def _decides(model: dict[str, Any]) -> str:
    name = model["name"]
    if name in SIMPLE_MODELS:
        return f"It decides by {SIMPLE_MODELS[name]}."
    beside = "" if model.get("companion") is None else f", together with {model['companion']['kind']}"
    return f"It decides by the network `{name}`, preset {model['preset']}, of {model['parameters']} parameters{beside}."


def _classes(card: dict[str, Any]) -> list[str]:
    counts = {} if card["split"] is None else card["split"]["classes"]
    rows = []
    for entry in card["classes"]:
        count = counts.get(str(entry["id"]), {})
        rows.append(
            (entry["id"], _plain(entry["name"]), f"`{entry['color']}`", count.get("train", ""), count.get("test", ""))
        )
    return [_table(("id", "class", "colour", "training pixels", "test pixels"), rows)]


def _bands(card: dict[str, Any]) -> list[str]:
    bands = card["bands"]
    used, count = bands["used"], bands["count"]
    wavelengths = [bands["wavelength"][band - 1] for band in used]
    widths = [width for band in used if (width := bands["fwhm"][band - 1]) is not None]
    text = f"It uses {len(used)} of the {count} bands of a scene: {_runs(used)}, counted from 1."
    if None in wavelengths:
        return [f"{text} The training scene has no wavelengths, so it maps scenes with the same bands only."]
    text += f" They lie from {min(wavelengths):.1f} to {max(wavelengths):.1f} nm"
    text += f", {min(widths):.1f} to {max(widths):.1f} nm wide." if widths else "."
    listed = ", ".join(f"{wavelength:.2f}" for wavelength in wavelengths)
    return [
        f"{text} Scenes of other sensors are resampled to them by wavelength.",
        f"<details><summary>Wavelengths in nm</summary>\n\n{listed}\n\n</details>",
    ]


def _input(card: dict[str, Any]) -> list[str]:
    normalisation, data = card["normalisation"], card["data"]
    return [
        f"Physical values in the units of the training scene, {_plain(data['file'])} ({' × '.join(map(str, data['shape']))}: "
        f"bands, rows, columns). They are normalised inside: {normalisation['method']}, learned without labels from "
        f"{normalisation['pixels']} pixels ({normalisation['statistics_from']})."
    ]


def _scores(card: dict[str, Any]) -> list[str]:
    scores, split = card["scores"], card["split"]
    divided = (
        ["All labelled pixels trained; none was left to score."]
        if split is None
        else record_in_words(split).splitlines()
    )
    told = "\n".join(f"- {_plain(line)}" for line in divided)
    if scores is None:
        return ["The file holds no scores.", told]
    rows = [
        (title, "not defined" if scores[key] is None else f"{scores[key]:.4f}") for key, (title, _) in _SCORES.items()
    ]
    return [
        f"On {scores['test_pixels']} test pixels of the training scene, which did not train:",
        _table(("score", "value"), rows),
        told,
        "Scores hold for this split only. Where patches of test pixels hold training pixels, they flatter; on other scenes and "
        "years expect less.",
    ]


def _use(repository: str | None) -> list[str]:
    model, load = "model.safetensors", 'Classifier.load("model.safetensors")'
    if repository is not None:
        model, load = f"hub:{repository}", f'Classifier.from_hub("{repository}")'
    extra = "" if repository is None else "[hub]"
    return [
        f'```sh\npip install "spectralmamba{extra}"\nspectralmamba map {model} scene.tif --out map.tif\n```',
        "```python\nfrom spectralmamba import Classifier, map_scene, open_scene\n\n"
        f'map_scene({load}, open_scene("scene.tif"), "map.tif")\n```',
    ]


def _limits(card: dict[str, Any]) -> list[str]:
    lines = [
        "Every pixel gets one of the classes above, also where the ground is none of them; the novelty layer of a map tells where "
        "spectra are unlike all of them.",
        "It has seen one scene: other seasons, places, atmospheres and sensors look different.",
        "Values of other units (digital numbers for reflectance) are refused or classified wrongly.",
    ]
    if card["model"]["patch"] > 1:
        lines.append("It sees patches, so borders of fields and things smaller than a patch are less certain.")
    counts = {} if card["split"] is None else card["split"]["classes"]
    untested = [entry for entry in card["classes"] if counts and not counts.get(str(entry["id"]), {}).get("test")]
    if untested:
        lines.append(
            f"Without a test pixel, so of unknown accuracy: {', '.join(_plain(entry['name']) for entry in untested)}."
        )
    if sets := card.get("prediction_sets"):
        lines.append(
            f"Prediction sets are meant to hold the class of {sets['coverage']:.0%} of the pixels. They were measured on "
            f"{sets['labels']} training labels ({_plain(sets['left_out'])}); elsewhere they may hold it less often."
        )
    return ["\n".join(f"- {line}" for line in lines)]


def _training(card: dict[str, Any]) -> list[str]:
    paragraphs = [f"Labels: {_plain(card['labels']['file'])}."] if card.get("labels") else []
    if choice := card.get("choice"):
        paragraphs.append(f"The model was chosen. {_plain(choice['reason'])}.")
    settings = "\n".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in card["settings"].items()
    )
    return [*paragraphs, f"<details><summary>Settings</summary>\n\n```\n{settings}\n```\n\n</details>"]


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _runs(numbers: list[int]) -> str:
    """Return ascending numbers as text, "1–9, 11, 16–20"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _plain(text: Any) -> str:
    """Return what users have named as text that neither Markdown, HTML nor YAML takes for more."""
    printable = "".join(letter if letter.isprintable() else " " for letter in str(text))
    for mark, written in {"&": "&amp;", "<": "&lt;", "|": "\\|", "`": "'", "[": "\\[", "*": "\\*"}.items():
        printable = printable.replace(mark, written)
    return printable
