"""One seed's training: its network, optimizer and step, and the checkpoint that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import one_hot

from spectralmamba.errors import SettingsError
from spectralmamba.settings import Settings
from spectralmamba.tensor_files import read_tensors, under_prefix, with_prefix, write_tensors
from spectralmamba.training.augmentation import Augmentation, ClassDifferences
from spectralmamba.training.schedule import Batches, one_cycle
from spectralmamba.training.task import Task

_PATCHES = 4096  # gathered at a time


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        loss: Loss of the last batch.
        accuracy: Share of the last batch that was classified right.
        learning_rate: Rate of the last step.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float


class Training:
    """What one seed's training consists of, between steps.

    Args:
        network: In training mode from here on.
        task: What it learns.
        settings: With the seed.
        checksum: Of the scene.
        checkpoint: File to keep the state in; None for none.
        on_step: Called after each step, or on a GPU after some steps for each of them.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        settings: Settings,
        checksum: str,
        checkpoint: Path | None,
        on_step: Callable[[Progress], None] | None,
    ) -> None:
        self.network, self.task, self.settings = network.train(), task, settings
        self.checkpoint, self._on_step = checkpoint, on_step
        self._identity = {"settings": settings.to_dict(), "data": checksum, "labels": task.checksum()}
        self.device = task.positions.device
        pixels = task.normalised.pixels
        self.neighbourhoods = pixels.neighbourhoods(task.positions, settings.patch)  # (n, P²)
        means = torch.cat([pixels.gathered(part).mean(1) for part in self.neighbourhoods.split(_PATCHES)])  # (n, L)
        differences = ClassDifferences(means, task.targets)
        self.augmentation = Augmentation(settings, pixels.values, task.normalised.pairs, differences)
        self.batches = Batches(task.targets.cpu().numpy(), settings)
        self.one_hot = one_hot(task.targets, len(task.classes)).float()  # (n, K)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.step = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step counted from 0."""
        return one_cycle(step, self.settings.steps, self.settings.learning_rate)

    def tell(self, step: int, loss: float, accuracy: float) -> None:
        """Hand a step that was done to the listener, if there is one."""
        if self._on_step is not None:
            self._on_step(Progress(step, self.settings.steps, loss, accuracy, self.rate(step - 1)))

    def save(self) -> None:
        """Write the checkpoint, if one is asked for."""
        if self.checkpoint is None:
            return
        tensors = with_prefix("network.", self.network.state_dict())
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= with_prefix(f"optimizer.{index}.", state)
        write_tensors(self.checkpoint, tensors, "checkpoint", self._identity | {"step": self.step})

    def restore(self) -> None:
        """Go on from the checkpoint.

        Raises:
            SettingsError: There is none, it is damaged, or of another training.
        """
        if self.checkpoint is None or not self.checkpoint.is_file():
            raise SettingsError(
                "there is no checkpoint to go on from",
                file=self.checkpoint,
                remedy="Train without --resume; an interrupted or killed training leaves one.",
            )
        header, tensors = _read_checkpoint(self.checkpoint)
        for part in self._identity:
            if header.get(part) != self._identity[part]:
                raise SettingsError(
                    f"the checkpoint is of a training with other {part}",
                    file=self.checkpoint,
                    remedy="Give the same scene, labels and settings, or train anew without --resume.",
                )
        self.step = header["step"]
        self.network.load_state_dict(under_prefix("network.", tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under_prefix("optimizer.", tensors).items():
            index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        text, tensors = read_tensors(path, "checkpoint")
        return json.loads(text or ""), tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise SettingsError("this is not a checkpoint", file=path, found=error) from error
