"""The steps of one seed's training, one after the other, on any device."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from spectralmamba.pixels import as_input
from spectralmamba.training.draws import Purpose, uniform, words
from spectralmamba.training.dropout import GivenDropout
from spectralmamba.training.state import Training

_AHEAD = 50  # steps whose batches are drawn at once


class SingleSteps:
    """Does the steps of one training."""

    block = 1

    def __init__(self, training: Training) -> None:
        self.trainings = [training]
        self._training = training
        self._batches, self._first = np.empty((0, 0), np.int64), 0
        _keep_freed_memory()

    def advance(self, count: int) -> np.ndarray:
        """Do some steps; return each one's loss and accuracy, `(count, 1, 2)`."""
        return np.array([[self._step()] for _ in range(count)])

    def store(self) -> None:
        """Bring the trainings up to date, which they always are."""

    def _step(self) -> tuple[float, float]:
        training = self._training
        for group in training.optimizer.param_groups:
            group["lr"] = training.rate(training.step)
        loss, accuracy = loss_of_step(training, training.network, self._batch())
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        training.optimizer.step()
        training.step += 1
        return loss.item(), accuracy.item()

    def _batch(self) -> Tensor:
        """Return the pixels of this step, `(B,)`; several steps' are drawn at once."""
        step = self._training.step
        if not self._first <= step < self._first + len(self._batches):
            self._first, self._batches = step, self._training.batches.take(step, _AHEAD)
        return torch.from_numpy(self._batches[step - self._first]).to(self._training.device)


def loss_of_step(training: Training, network: nn.Module, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return a network's loss in a training's next step on the training pixels `(B,)`, and the share that it gets right."""
    settings, augmentation, step = training.settings, training.augmentation, training.step
    _seed_torch(settings.seed, step, training.device)
    changes = augmentation.draw(len(chosen), step)
    neighbourhoods = augmentation.turn(training.neighbourhoods[chosen], changes)
    spectra = training.task.normalised.pixels.gathered(neighbourhoods)  # (B, P², L)
    spectra = augmentation.change(spectra, changes, step)
    of_samples = [of_pixels[chosen] for of_pixels in (training.one_hot, training.weights) if of_pixels is not None]
    spectra, targets, *weights = augmentation.mix([spectra, *of_samples], step)

    def drawn(call: int, shape: torch.Size) -> Tensor:
        numbers = uniform(words(settings.seed, Purpose.DROPOUT, math.prod(shape), step=step, call=call))
        return torch.from_numpy(numbers).to(training.device).view(shape)

    with GivenDropout(drawn):
        logits = network(as_input(spectra))  # (B, K)
    return training.loss(logits, targets, *weights), (logits.detach().argmax(1) == targets.argmax(1)).float().mean()


def _seed_torch(seed: int, step: int, device: torch.device) -> None:
    """Seed torch's own generators, for networks that draw more than dropout's masks.

    Without the GPU's, which `torch.manual_seed` spends most of its time on, if none is used.
    """
    of_step = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    if device.type == "cpu":
        torch.default_generator.manual_seed(of_step)
    else:
        torch.manual_seed(of_step)


def _keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, which would otherwise wait for the system to clear new pages.

    It gives back freed memory above twice the largest block that was ever freed, counting blocks of up to 32 MiB.
    """
    torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8)
