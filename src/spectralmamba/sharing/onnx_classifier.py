"""An exported ONNX model that maps scenes as the classifier does that it was made from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectralmamba.classifier import Classifier, check_card, parse_card
from spectralmamba.errors import ClassifierError, MissingPackageError, SettingsError, SpectralMambaError
from spectralmamba.files import atomic_output
from spectralmamba.sharing.export import CARD, INPUT, OUTPUTS
from spectralmamba.sharing.hub import ADDRESS, pull_address
from spectralmamba.transforms import InputTransform

_LOGITS = OUTPUTS[1]
# Pixels that onnxruntime takes at a time: so many have the states of their scan in a CPU's cache.
_BATCH = 64
_ERRORS_ONLY = 3  # of onnxruntime's log


def load_classifier(path: str | os.PathLike[str], device: str = "auto") -> Classifier:
    """Load whatever maps: a classifier's file, an ONNX model that was exported of one, or a repository "hub:owner/name@revision".

    Args:
        path: A file, told by its content, or an address; the revision may be left out.
        device: As `Classifier.load` has it; an ONNX model computes on the CPU.

    Raises:
        ClassifierError: It is neither, or damaged.
        HubError: As `Classifier.from_hub` has it.
        MissingPackageError: It is an ONNX model or an address, and what reads these is not installed.
        SettingsError: The device is not available, or the model does not compute there.
    """
    if str(path).startswith(ADDRESS):
        return Classifier.load(pull_address(str(path)), device)
    return OnnxClassifier.load(path, device) if _is_onnx(Path(path)) else Classifier.load(path, device)


def _is_onnx(path: Path) -> bool:
    """Tell whether a file begins as a model of ONNX does, with its version, and not with the header of a safetensors file."""
    if not path.is_file():
        return path.suffix.lower() == ".onnx"
    with path.open("rb") as opened:
        begin = opened.read(9)
    return begin[8:9] != b"{" and (begin[:1] == b"\x08" or path.suffix.lower() == ".onnx")


class OnnxClassifier(Classifier):
    """An ONNX model with the card of its classifier, for `map_scene`, `predict` and `predict_proba`, on the CPU.

    Its network takes physical values, and its transform leaves them so. It tells neither novelty nor prediction sets.
    """

    network: OnnxNetwork

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "auto") -> OnnxClassifier:
        """Read a model that `export_onnx` wrote, and check that it fits its card.

        Args:
            path: The .onnx file.
            device: "auto" or "cpu".

        Raises:
            ClassifierError: The file is missing, not an ONNX model, or none of this package, or it does not fit its card.
            MissingPackageError: onnx or onnxruntime is not installed.
            SettingsError: Another device.
        """
        _check_device(device)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ClassifierError("cannot read the model", file=path, found=error.strerror) from error
        network = OnnxNetwork(content, path)
        card = parse_card(network.metadata.get(CARD), path, "an ONNX model that `spectralmamba export` wrote")
        try:
            check_card(card)
            expected = {"bands": len(card["bands"]["used"]), "patch": card["model"]["patch"]}
            expected["classes"] = len(card["classes"])
            transform = _stored_transform(content, expected["bands"])
        except MissingPackageError:
            raise
        except (SpectralMambaError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ClassifierError("the card does not describe the model", file=path, found=error) from error
        if network.sizes != expected:
            raise ClassifierError("the model does not fit its card", file=path, found=network.sizes, expected=expected)
        return cls(network, transform.eval(), card)

    @property
    def left_out(self) -> list[str]:
        """What the classifier told that it was made from, and the model does not."""
        sets = ["prediction sets"] if self.card.get("prediction_sets") else []
        return ["novelty", *sets]

    def to(self, device: torch.device | str) -> OnnxClassifier:
        """Return it, if it computes there."""
        _check_device(str(device))
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as it was read, atomically."""
        with atomic_output(path) as temporary:
            temporary.write_bytes(self.network.content)

    def fingerprint(self) -> str:
        """Return a text that two models have in common only if they say the same of every scene."""
        return hashlib.sha256(self.network.content).hexdigest()

    def push_to_hub(self, repo_id: str, **_: Any) -> str:
        """Refuse: a repository holds the classifier itself, which everything can be made of."""
        raise ClassifierError("an ONNX model is not pushed", remedy="Push the classifier that it was exported of.")


class OnnxNetwork(nn.Module):
    """What onnxruntime computes of an exported model, by one thread for each that calls it.

    Attributes:
        content: The model's bytes.

    Shapes: physical values `(B, L)`, or `(B, L, P, P)` → logits `(B, K)`.
    """

    def __init__(self, content: bytes, file: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.content, self._session = content, start_session(content, file)
        inputs = {each.name: each.shape for each in self._session.get_inputs()}
        outputs = {each.name: each.shape for each in self._session.get_outputs()}
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        shape, classes = inputs.get(INPUT, []), outputs.get(_LOGITS, [])
        patches = len(shape) == 4 and shape[2] == shape[3]
        self.sizes = {
            "bands": shape[1] if patches or len(shape) == 2 else None,
            "patch": shape[2] if patches else 1,
            "classes": classes[1] if len(classes) == 2 else None,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # Dask sends classifiers to other processes, and a session stays in its own.
        return OnnxNetwork, (self.content,)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        parts = (np.ascontiguousarray(part.numpy()) for part in x.split(_BATCH))
        return torch.cat([torch.from_numpy(self._session.run([_LOGITS], {INPUT: part})[0]) for part in parts])


class _LeftToTheModel(InputTransform):
    """The transform that a model holds, for what else is known by it; it is the model that transforms."""

    def forward(self, spectra: Tensor) -> Tensor:
        """Return spectra `(n, L)` as they are."""
        return spectra

    def of_image(self, image: Tensor) -> Tensor:
        """Return an image `(L, h, w)` as `(h, w, L)`."""
        return image.permute(1, 2, 0).contiguous()


def start_session(content: bytes, file: str | os.PathLike[str] | None) -> Any:
    """Return what runs a model on the CPU, by the thread that calls it.

    Raises:
        ClassifierError: It is no model, or one that onnxruntime cannot run.
        MissingPackageError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError.of("an ONNX model needs", "onnxruntime", "1.18", "onnx", file) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise ClassifierError(
            "this is not an ONNX model that can be run",
            file=file,
            found=f"{len(content)} bytes; {str(error).splitlines()[0]}",
            expected="an ONNX model that `spectralmamba export` wrote",
        ) from error


def _stored_transform(content: bytes, bands: int) -> InputTransform:
    """Return the transform of a model in so many bands, from the tensors of its graph."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingPackageError.of("an ONNX model needs", "onnx", "1.16", "onnx") from error
    transform = _LeftToTheModel(bands)
    names = {f"transform.{name}": name for name in transform.state_dict()}
    stored = {
        names[tensor.name]: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load_from_string(content).graph.initializer
        if tensor.name in names
    }
    transform.load_state_dict(stored)
    return transform


def _check_device(name: str) -> None:
    if name not in ("auto", "cpu"):
        raise SettingsError("an ONNX model computes on the CPU", found=name, expected="auto or cpu")
