"""Classifiers for other people and programs: model cards, repositories, ONNX models and graphs of torch.export."""

from spectralmamba.sharing.card import model_card
from spectralmamba.sharing.export import export_onnx, export_torch
from spectralmamba.sharing.hub import pull, push
from spectralmamba.sharing.onnx_classifier import OnnxClassifier, load_classifier

__all__ = ["OnnxClassifier", "export_onnx", "export_torch", "load_classifier", "model_card", "pull", "push"]
