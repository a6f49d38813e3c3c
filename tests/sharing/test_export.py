"""Exported graphs give what the classifier gives, and say what they are; what cannot be exported is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharing_example import KINDS, Made

from spectralmamba import Classifier
from spectralmamba.errors import ClassifierError, MissingPackageError, OutputError
from spectralmamba.ops import selective_scan
from spectralmamba.ops.selective_scan.unrolled import selective_scan_unrolled
from spectralmamba.pixels import Pixels
from spectralmamba.sharing import export, export_onnx, export_torch, load_classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

SPECTRA = 10_000


def spectra_and_probabilities(classifier: Classifier, rows: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return made-up physical values `(B, L)` or `(B, L, P, P)`, and what the classifier says of them."""
    transform, patch = classifier.transform, classifier.patch
    draws = torch.randn(rows * SPECTRA // rows, len(transform.mean), generator=torch.Generator().manual_seed(1))
    image = (transform.mean + draws / transform.inverse_sd).unflatten(0, (rows, -1))  # (H, W, L)
    pixels = Pixels.of_image(image, torch.ones(image.shape[:2], dtype=torch.bool))
    positions = torch.arange(SPECTRA)
    gathered = next(pixels.patches(positions, patch, SPECTRA))  # (B, P², L)
    spectra = gathered[:, 0] if patch == 1 else gathered.mT.unflatten(2, (patch, patch))
    return spectra.contiguous().numpy(), classifier.probabilities(pixels, positions).numpy()


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)  # float32, summed in another order
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.9999


@pytest.mark.parametrize("kind", KINDS)
def test_an_onnx_model_gives_the_probabilities_of_its_classifier_for_a_batch_of_any_size(made: Made, kind: str):
    classifier, content = made.classifier(kind), made.onnx(kind).read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    spectra, expected = spectra_and_probabilities(classifier)
    batches = np.split(spectra, [1, 3, 2000])
    answers = [session.run(["probabilities", "logits"], {"spectra": batch}) for batch in batches]
    probabilities, logits = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    assert_same(probabilities, expected)
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), probabilities, atol=1e-6)
    assert len(np.unique(expected.argmax(1))) > 1


@pytest.mark.parametrize("kind", ["paper, pixelwise", "default, label propagation beside"])
def test_a_program_of_torch_export_gives_them_too(made: Made, kind: str, tmp_path: Path):
    classifier, file = made.classifier(kind), tmp_path / "model.pt2"
    export_torch(classifier, file)
    card = {"card": ""}
    program = torch.export.load(file, extra_files=card).module()
    assert json.loads(card["card"]) == classifier.card
    spectra, expected = spectra_and_probabilities(classifier)
    with torch.inference_mode():
        probabilities = torch.cat([program(part)[0] for part in torch.from_numpy(spectra).split([1, SPECTRA - 1])])
    assert_same(probabilities.numpy(), expected)
    assert str(Path(export.__file__).parent).encode() not in file.read_bytes()


def test_a_model_holds_the_card_and_nothing_of_the_machine_it_was_made_on(made: Made):
    kind = "default, label propagation beside"
    content = made.onnx(kind).read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["card"]) == made.classifier(kind).card
    shape = [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", len(made.classifier(kind).bands), 7, 7]
    assert str(Path(export.__file__).parents[1]).encode() not in content
    assert len(content) < 1 << 20


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_the_unrolled_scan_is_the_scan(tokens: int):
    draw = torch.Generator().manual_seed(0)
    shapes = (3, tokens, 8), (3, tokens, 8), (8, 4), (3, tokens, 4), (3, tokens, 4), (8,), (8,)
    u, delta, A, B, C, D, bias = (torch.randn(shape, generator=draw) for shape in shapes)
    expected = selective_scan(u, delta, -A.exp(), B, C, D, delta_bias=bias, delta_softplus=True, backend="reference")
    torch.testing.assert_close(selective_scan_unrolled(u, delta, -A.exp(), B, C, D, bias), expected)


def test_a_network_that_depends_on_the_size_of_a_batch_is_refused(made: Made, tmp_path: Path):
    class TwoByTwo(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :3] * 1.0 if x.shape[0] == 2 else x[:, 1:4]

    classifier = made.classifier("paper, pixelwise")
    classifier.network = TwoByTwo()
    for write in (export_onnx, export_torch):
        with pytest.raises(ClassifierError, match=r"network spectral_mamba cannot be exported.*size of a batch"):
            write(classifier, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_tells_something_else_is_not_written(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def wrong(self: Any, u: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return u * 5

    monkeypatch.setattr(export._UnrolledScan, "forward", wrong)
    with pytest.raises(ClassifierError, match="tells something else"):
        export_torch(made.classifier("paper, pixelwise"), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_an_exported_model_is_not_exported_again(made: Made, tmp_path: Path):
    with pytest.raises(ClassifierError, match="exported model already"):
        export_onnx(load_classifier(made.onnx("support vectors")), tmp_path / "again.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(made: Made, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"package {package};.*spectralmamba\[onnx\]"):
        export_onnx(made.classifier("support vectors"), tmp_path / "model.onnx")


def test_a_folder_that_is_not_there_is_named(made: Made, tmp_path: Path):
    with pytest.raises(OutputError, match="folder does not exist"):
        export_torch(made.classifier("support vectors"), tmp_path / "none" / "model.pt2")
