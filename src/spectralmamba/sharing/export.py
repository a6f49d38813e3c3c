"""A classifier as a graph that runs without this package: an ONNX model, or a program of torch.export.

Both take physical values as the scene has them and give what `Classifier.predict_proba` gives, the companion's share included.
Novelty and prediction sets stay behind.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spectralmamba.errors import ClassifierError, MissingPackageError
from spectralmamba.files import atomic_output
from spectralmamba.models.spectral_mamba import SelectiveScan
from spectralmamba.ops.selective_scan.unrolled import selective_scan_unrolled
from spectralmamba.transforms import InputTransform

if TYPE_CHECKING:
    from spectralmamba.classifier import Classifier

INPUT, OUTPUTS = "spectra", ("probabilities", "logits")
CARD = "card"
"""Key of a model's metadata that holds the classifier's card as JSON."""

OPSET = 18
"""Of ONNX's operators: what every exporter since torch 2.5 writes without converting, and onnxruntime since 1.14 runs."""

_EXAMPLE, _TRIED = 2, 5  # pixels that a graph is made with, and those that it is tried on
_TOLERANCE = 1e-4  # of probabilities: float32, summed in another order


class _UnrolledScan(nn.Module):
    """What takes the place of `SelectiveScan`, whose operator is known to torch alone."""

    def forward(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
    ) -> Tensor:
        return selective_scan_unrolled(u, delta, A, B, C, D, delta_bias)


class _WholeClassifier(nn.Module):
    """Normalisation, network and companion: physical values → probabilities and logits, each `(B, K)`."""

    def __init__(self, transform: InputTransform, network: nn.Module) -> None:
        super().__init__()
        self.transform, self.network = transform, network

    def forward(self, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """Classify spectra `(B, L)`, or patches `(B, L, P, P)`."""
        if spectra.dim() == 4:
            pixels = self.transform(spectra.permute(0, 2, 3, 1).flatten(0, 2))  # (B · P², L)
            normalised = pixels.unflatten(0, (-1, *spectra.shape[2:])).permute(0, 3, 1, 2)
        else:
            normalised = self.transform(spectra)
        logits = self.network(normalised)
        return logits.softmax(1), logits


def export_onnx(classifier: Classifier, path: str | os.PathLike[str]) -> None:
    """Write a classifier as an ONNX model, atomically.

    Input `spectra`, float32: physical values of the classifier's bands, those of the card's `bands.used` in that order: `(B, L)`
    for P = 1, else patches `(B, L, P, P)`, rows then columns, whose missing pixels are the centre's spectrum. B is free. Outputs
    `probabilities` and `logits`, `(B, K)`, classes in the card's order. The card is JSON under `card` of the model's metadata.

    Args:
        classifier: From `fit` or `Classifier.load`. What decides is exported whole: network, label propagation, support vectors or
            logistic regression.
        path: The .onnx file, replaced if it is there.

    Raises:
        ClassifierError: The network cannot be expressed with a free batch, or tells something else there.
        MissingPackageError: onnx, onnxscript or onnxruntime is not installed.
        OutputError: The file cannot be written.
    """
    onnx = _packages_of_onnx()
    whole = _whole(classifier)
    program = _traced(classifier, whole)
    try:
        with _quietly():
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # of the exporter, whose exceptions are of many kinds
        raise _not_to_be_exported(classifier, error) from error
    model = exported.model_proto
    _strip(model)
    _keep_transform(model, whole.transform)
    model.doc_string = _described(classifier)
    model.metadata_props.add(key=CARD, value=json.dumps(classifier.card, allow_nan=False))
    content = model.SerializeToString()
    onnx.checker.check_model(content, full_check=True)
    from spectralmamba.sharing.onnx_classifier import start_session

    session = start_session(content, path)
    _check_same(classifier, whole, lambda x: torch.from_numpy(session.run(list(OUTPUTS), {INPUT: x.numpy()})[0]))
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)


def export_torch(classifier: Classifier, path: str | os.PathLike[str]) -> None:
    """Write a classifier as a program of torch.export (.pt2), atomically; input, outputs and errors are those of `export_onnx`.

    `torch.export.load(path).module()` runs it, without this package. The card is JSON in its extra file `card`.

    Args:
        classifier: From `fit` or `Classifier.load`.
        path: The .pt2 file, replaced if it is there.

    Raises:
        ClassifierError: As `export_onnx` has it.
        OutputError: The file cannot be written.
    """
    whole = _whole(classifier)
    program = _traced(classifier, whole)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    _check_same(classifier, whole, lambda x: program.module()(x)[0])
    content = io.BytesIO()
    with _quietly():
        torch.export.save(program, content, extra_files={CARD: json.dumps(classifier.card, allow_nan=False)})
    with atomic_output(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _packages_of_onnx() -> Any:
    """Return onnx, if all that exporting needs is installed."""
    for package, version in (("onnx", "1.16"), ("onnxscript", "0.1"), ("onnxruntime", "1.18")):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingPackageError.of("exporting to ONNX needs", package, version, "onnx") from error
    import onnx

    return onnx


def _whole(classifier: Classifier) -> _WholeClassifier:
    """Return a copy of all that decides, on the CPU, of operations that every graph knows.

    Raises:
        ClassifierError: It is such a graph already.
    """
    from spectralmamba.sharing.onnx_classifier import OnnxClassifier

    if isinstance(classifier, OnnxClassifier):
        raise ClassifierError(
            "this is an exported model already", remedy="Export the classifier that it was made from."
        )
    whole = copy.deepcopy(_WholeClassifier(classifier.transform, classifier.network)).cpu().eval()
    for module in whole.modules():
        for name, child in module.named_children():
            if isinstance(child, SelectiveScan):
                setattr(module, name, _UnrolledScan())
    return whole.requires_grad_(False)


def _traced(classifier: Classifier, whole: _WholeClassifier) -> torch.export.ExportedProgram:
    """Return the operations of a classifier, for a batch of any size.

    Raises:
        ClassifierError: They depend on the batch's size, or on values.
    """
    free = {INPUT: {0: torch.export.Dim("batch")}}
    try:
        with _quietly(), torch.no_grad():
            return torch.export.export(whole, (_pixels(classifier, _EXAMPLE),), dynamic_shapes=free, strict=False)
    except Exception as error:  # of the tracer, whose exceptions are of many kinds
        raise _not_to_be_exported(classifier, error) from error


def _not_to_be_exported(classifier: Classifier, error: Exception) -> ClassifierError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ClassifierError(
        f"the network {classifier.card['model']['name']} cannot be exported",
        found=reason,
        expected="operations that do not depend on the size of a batch",
        remedy="Export spectral_mamba or a simple model; this one maps from its own file.",
    )


def _pixels(classifier: Classifier, count: int) -> Tensor:
    """Return values of so many made-up pixels, spread as the training side's: `(B, L)`, or `(B, L, P, P)`."""
    patch, transform = classifier.patch, classifier.transform
    mean, sd = (values.cpu() for values in (transform.mean, 1 / transform.inverse_sd))
    shape = (count, patch, patch, len(mean))
    values = mean + sd * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values[:, 0, 0].contiguous() if patch == 1 else values.permute(0, 3, 1, 2).contiguous()


def _check_same(classifier: Classifier, whole: _WholeClassifier, exported: Any) -> None:
    """Compare an exported graph with the classifier, on batches of other sizes than it was made with.

    Raises:
        ClassifierError: They differ.
    """
    original = _WholeClassifier(
        copy.deepcopy(classifier.transform).cpu(), copy.deepcopy(classifier.network).cpu().eval()
    )
    for count in (1, _TRIED):
        pixels = _pixels(classifier, count)
        try:
            with torch.inference_mode():
                apart = (exported(pixels) - original(pixels)[0]).abs().max().item()
        except Exception as error:  # of what runs the graph
            raise _not_to_be_exported(classifier, error) from error
        if not apart <= _TOLERANCE:
            raise ClassifierError(
                "the exported graph tells something else than the classifier",
                found=f"probabilities that differ by {apart:.1e}",
                expected=f"at most {_TOLERANCE:.0e}",
            )


def _strip(model: Any) -> None:
    """Take out what the exporter notes of every operation, such as folders of this machine; half of a small model's bytes."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        if hasattr(part, "metadata_props"):  # since onnx 1.16
            del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # exporters have names of their own for it


def _keep_transform(model: Any, transform: InputTransform) -> None:
    """Add what the exporter has folded away of the transform: scenes of other sensors are checked and filled with it."""
    from onnx import numpy_helper

    there = {tensor.name for tensor in model.graph.initializer}
    for name, tensor in transform.state_dict().items():
        if f"transform.{name}" not in there:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(tensor), f"transform.{name}"))


def _described(classifier: Classifier) -> str:
    patch, bands = classifier.patch, len(classifier.bands)
    shape = f"(batch, {bands})" if patch == 1 else f"(batch, {bands}, {patch}, {patch})"
    return (
        f"A classifier of spectralmamba. {INPUT} {shape}: physical values of the card's bands.used, in that order. "
        f"{' and '.join(OUTPUTS)} (batch, {len(classifier.classes)}): of the card's classes, in that order. "
        f"The card is JSON under '{CARD}' of the metadata."
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep from the user what exporters say of packages that nothing here needs, and of what they will change."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)
