"""`spectralmamba card`, `export`, `push` and `pull`: a classifier for other people and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectralmamba.cli.options import ModelFile
from spectralmamba.cli.show import console, say_files
from spectralmamba.errors import OutputError, SettingsError

License = Annotated[
    str | None,
    typer.Option(
        help="Licence of the classifier as the Hugging Face Hub calls it, such as cc-by-4.0; else the card says it has none.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over files of that name.")]
Token = Annotated[
    str | None,
    typer.Option(
        help="Access token; else the one that `hf auth login` has left.",
        envvar="HF_TOKEN",
        show_default=False,
        show_envvar=True,
    ),
]
Endpoint = Annotated[
    str | None, typer.Option(help="Address of the Hub; else HF_ENDPOINT or the public one.", show_default=False)
]


def card(
    model: ModelFile,
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path("README.md"),
    license: License = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model card: what a classifier is, its classes, bands, scores with their split, use and limits."""
    _check_free(overwrite, out, model=model)
    from spectralmamba.classifier import Classifier
    from spectralmamba.files import write_text
    from spectralmamba.sharing.card import model_card

    write_text(out, model_card(Classifier.load(model, "cpu").card, license=license))
    say_files(Card=out)


def export(
    model: ModelFile,
    onnx: Annotated[
        Path | None, typer.Option(help="ONNX model to write, which `spectralmamba map` takes, too.", show_default=False)
    ] = None,
    torch_export: Annotated[
        Path | None, typer.Option(help="Program of torch.export (.pt2) to write.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a classifier as a graph that runs without this package: normalisation, network and companion in one.

    It gives class probabilities. Novelty and prediction sets are not in it.
    """
    if onnx is None and torch_export is None:
        raise SettingsError("nothing is asked for", expected="--onnx FILE or --torch-export FILE")
    _check_free(overwrite, *(file for file in (onnx, torch_export) if file is not None), model=model)
    from spectralmamba.sharing import export_onnx, export_torch, load_classifier

    classifier = load_classifier(model, "cpu")
    if onnx is not None:
        export_onnx(classifier, onnx)
        say_files(ONNX=onnx)
    if torch_export is not None:
        export_torch(classifier, torch_export)
        say_files(Program=torch_export)


def push(
    model: ModelFile,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository.", show_default=False)],
    license: License = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to commit to; else the main one.", show_default=False)
    ] = None,
    token: Token = None,
    endpoint: Endpoint = None,
) -> None:
    """Upload a classifier with its model card to a model repository of the Hugging Face Hub."""
    from spectralmamba.classifier import Classifier

    where = {"token": token, "private": private, "endpoint": endpoint, "revision": revision}
    commit = Classifier.load(model, "cpu").push_to_hub(repository, license=license, **where)
    console.print(f"Uploaded: {commit}", markup=False)


def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("model.safetensors"),
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; else the main branch.", show_default=False)
    ] = None,
    token: Token = None,
    endpoint: Endpoint = None,
    overwrite: Overwrite = False,
) -> None:
    """Download a classifier from a model repository of the Hugging Face Hub, and check it. Pickles are refused."""
    _check_free(overwrite, out)
    from spectralmamba.classifier import Classifier

    where = {"token": token, "endpoint": endpoint, "revision": revision}
    Classifier.from_hub(repository, device="cpu", **where).save(out)
    say_files(Classifier=out)


def _check_free(overwrite: bool, *files: Path, model: Path | None = None) -> None:
    for file in files:
        if model is not None and file.resolve() == model.resolve():
            raise OutputError("this would replace the classifier", file=file, remedy="Choose another name.")
        if not file.parent.is_dir():
            raise OutputError("the output folder does not exist", file=file.parent, remedy="Create it first.")
        if file.is_dir() or (file.exists() and not overwrite):
            raise OutputError("this file exists", file=file, remedy="Choose another name or add --overwrite.")
