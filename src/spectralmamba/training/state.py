"""One seed's training: its network, optimizer and step, and the checkpoint that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import one_hot

from spectralmamba.errors import SettingsError
from spectralmamba.pixels import as_input, patch_means
from spectralmamba.settings import Settings
from spectralmamba.tensor_files import read_tensors, under_prefix, with_prefix, write_tensors
from spectralmamba.training.augmentation import Augmentation, ClassDifferences
from spectralmamba.training.rare_classes import Loss, batch_weights, without_prior
from spectralmamba.training.schedule import Batches, one_cycle
from spectralmamba.training.task import Task

_EXAMPLES = 64  # training pixels that show what a bias does


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


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        stage: Number of the stage that was being trained.
        step: Steps done in it.
        tensors: By name.
    """

    stage: int
    step: int
    tensors: dict[str, Tensor]

    @classmethod
    def load(cls, path: Path | None, identity: dict[str, Any]) -> Checkpoint:
        """Read a checkpoint.

        Args:
            path: Its file.
            identity: Of the training that wants to go on: settings and checksums by what they are of.

        Raises:
            SettingsError: There is none, it is damaged, or of another training.
        """
        if path is None or not path.is_file():
            raise SettingsError(
                "there is no checkpoint to go on from",
                file=path,
                remedy="Train without --resume; an interrupted or killed training leaves one.",
            )
        header, tensors = _read_checkpoint(path)
        for part in identity:
            if header.get(part) != identity[part]:
                raise SettingsError(
                    f"the checkpoint is of a training with other {part}",
                    file=path,
                    remedy="Give the same scene, labels and settings, or train anew without --resume.",
                )
        return cls(header["stage"], header["step"], tensors)


@dataclass
class Keeper:
    """Where a training's state is kept, and who is told of its steps, which are one stage of several.

    Attributes:
        checkpoint: File to keep the state in; None for none.
        listener: Called after each step, or on a GPU after some steps for each of them.
        identity: Settings and checksums that a checkpoint is of.
        stage: Number of the stage.
        stages: How many there are.
        tensors: What else belongs to the state.
    """

    checkpoint: Path | None = None
    listener: Callable[[Progress], None] | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    stage: int = 0
    stages: int = 1
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Training:
    """What the training of one network consists of, between steps.

    Args:
        network: In training mode from here on.
        task: What it learns.
        settings: With the seed and the network's own patch width.
        keeper: Where its state is kept and who is told of its steps.

    Raises:
        SettingsError: What is to be done for rare classes does not fit the network.
    """

    def __init__(self, network: nn.Module, task: Task, settings: Settings, keeper: Keeper | None = None) -> None:
        self.network, self.task, self.settings = network.train(), task, settings
        self.device = task.positions.device
        pixels = task.normalised.pixels
        self.neighbourhoods = pixels.neighbourhoods(task.positions, settings.patch)  # (n, P²)
        differences = ClassDifferences(patch_means(pixels, task.positions, settings.patch), task.targets)
        self.augmentation = Augmentation(settings, pixels.values, task.normalised.pairs, differences)
        self.batches = Batches(task.targets.cpu().numpy(), settings)
        self.one_hot = one_hot(task.targets, len(task.classes)).float()  # (n, K)
        # How much each pixel counts in the loss, (n,); None: all alike.
        self.weights = None if task.weights is None else batch_weights(task.weights, self.one_hot, settings)
        weighted = self.one_hot if task.weights is None else self.one_hot * task.weights[:, None]
        self.counts = weighted.sum(0)  # of the classes, (K,)
        self.loss = Loss(self.counts, settings)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.step = 0
        self.keeper = keeper or Keeper()
        self.answering()  # what cannot be corrected is refused now rather than when it is trained

    def rate(self, step: int) -> float:
        """Return the learning rate of a step counted from 0."""
        return one_cycle(step, self.settings.steps, self.settings.learning_rate)

    def answering(self) -> nn.Module:
        """Return the network as it answers; a copy where that is otherwise than it trains."""
        if self.settings.rare_classes != "prior correction":
            return self.network
        examples = self.task.normalised.pixels.gathered(self.neighbourhoods[:_EXAMPLES])
        return without_prior(self.network, self.counts / self.counts.sum(), as_input(examples))

    def steps_of_all(self, step: int) -> tuple[int, int]:
        """Return the steps done in all stages when `step` are done in this one, and how many there are."""
        return self.keeper.stage * self.settings.steps + step, self.keeper.stages * self.settings.steps

    def tell(self, step: int, loss: float, accuracy: float) -> None:
        """Hand a step that was done to the listener, if there is one."""
        if self.keeper.listener is not None:
            self.keeper.listener(Progress(*self.steps_of_all(step), loss, accuracy, self.rate(step - 1)))

    def save(self) -> None:
        """Write the checkpoint, if one is asked for."""
        keeper = self.keeper
        if keeper.checkpoint is None:
            return
        tensors = with_prefix("network.", self.network.state_dict()) | with_prefix("pupil.", keeper.tensors)
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= with_prefix(f"optimizer.{index}.", state)
        header = keeper.identity | {"stage": keeper.stage, "step": self.step}
        write_tensors(keeper.checkpoint, tensors, "checkpoint", header)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.step = checkpoint.step
        self.network.load_state_dict(under_prefix("network.", checkpoint.tensors))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under_prefix("optimizer.", checkpoint.tensors).items():
            index, key = name.split(".")
            states.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        text, tensors = read_tensors(path, "checkpoint")
        return json.loads(text or ""), tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise SettingsError("this is not a checkpoint", file=path, found=error) from error
