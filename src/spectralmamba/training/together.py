"""The steps of several seeds' trainings at once on a GPU, recorded as one CUDA graph.

A light network keeps a GPU busy for a fraction of the time that its host takes to start the kernels of a step. So the seeds'
weights are stacked, `torch.vmap` makes one network of them, and the whole step, from drawing the batch to the optimizer, is
recorded once and then replayed. Letters besides the model's: V seeds, S steps.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectralmamba.ops.stacked import StackedLayers
from spectralmamba.pixels import as_input
from spectralmamba.training.dropout import GivenDropout
from spectralmamba.training.kernels import JointBatches
from spectralmamba.training.rare_classes import Loss
from spectralmamba.training.single import loss_of_step
from spectralmamba.training.state import Training

_TOLERANCE = 1e-3  # of the self-check: float32 sums in another order give 1e-6
_WARM_UP = 3  # steps before recording, in which libraries set themselves up


class JointSteps:
    """Does the steps of trainings of different seeds that stand at the same step.

    Args:
        trainings: With the same settings but for the seed, the same number of classes, and on the same device; pixels of all have
            weights, or of none.

    Raises:
        OutOfMemoryError: They need more than the device has.
        RuntimeError: The network does something that cannot be batched or recorded, or the kernels fail their self-check.
    """

    block = 50

    def __init__(self, trainings: list[Training]) -> None:
        self.trainings = trainings
        first = trainings[0]
        self._settings, self._device = first.settings, first.device
        seeds, batch = len(trainings), self._settings.batch_size
        self._step = torch.tensor([first.step], device=self._device)
        self._batches = JointBatches.of(
            [training.augmentation for training in trainings],
            [training.neighbourhoods for training in trainings],
            self._step,
        )
        self._one_hot = torch.nn.utils.rnn.pad_sequence([training.one_hot for training in trainings], batch_first=True)
        weights = [training.weights for training in trainings if training.weights is not None]
        self._weights = torch.nn.utils.rnn.pad_sequence(weights, batch_first=True) if weights else None
        self._loss = Loss(torch.stack([training.counts for training in trainings])[:, None], self._settings)
        # What is decided on the host for the next steps, what they gave, and which of them is done.
        self._chosen = torch.zeros(self.block, seeds, batch, dtype=torch.int64, device=self._device)
        self._rates = torch.zeros(self.block, device=self._device)
        self._shares = torch.zeros(self.block, seeds, 1, 1, device=self._device)
        self._others = torch.zeros(self.block, seeds, batch, dtype=torch.int64, device=self._device)
        self._results = torch.zeros(self.block, seeds, 2, device=self._device)
        self._place = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._ahead: tuple[int, list[Tensor]] | None = None

        self._network = copy.deepcopy(first.network)  # its weights are never read
        self._parameters = _stacked(trainings, nn.Module.named_parameters)
        self._buffers = _stacked(trainings, nn.Module.named_buffers)
        for name, parameter in first.network.named_parameters():
            self._parameters[name].requires_grad_(parameter.requires_grad)
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=torch.tensor(self._settings.learning_rate, device=self._device),  # pyright: ignore[reportArgumentType]
            weight_decay=self._settings.weight_decay,
            fused=True,
            capturable=True,
        )
        self._dropouts = self._dropout_shapes()
        if os.environ.get("SPECTRALMAMBA_SELF_CHECK") != "0":
            self._check()
        self._graph = self._record()
        self._load()

    def advance(self, count: int) -> np.ndarray:
        """Do up to `block` steps; return each one's loss and accuracy of each seed, `(count, V, 2)`."""
        step = self.trainings[0].step
        self._decide(step)
        for _ in range(count):
            if self._graph is None:
                self._do_step()
            else:
                self._graph.replay()
        for training in self.trainings:
            training.step += count
        self._ahead = step + count, self._decided(step + count)  # while the device is busy
        return self._results[:count].cpu().numpy()

    def store(self) -> None:
        """Copy weights and the optimizer's state to the trainings."""
        with torch.no_grad():
            for number, training in enumerate(self.trainings):
                tensors = dict(training.network.named_parameters()) | dict(training.network.named_buffers())
                for name, stacked in (self._parameters | self._buffers).items():
                    tensors[name].copy_(stacked[number])
                for name, stacked in self._parameters.items():
                    state = training.optimizer.state[tensors[name]]
                    for key, value in self._optimizer.state[stacked].items():
                        state[key] = value.clone() if key == "step" else value[number].clone()

    def _load(self) -> None:
        """Copy the trainings' weights and optimizer states here, into the memory that was recorded."""
        with torch.no_grad():
            for number, training in enumerate(self.trainings):
                tensors = dict(training.network.named_parameters()) | dict(training.network.named_buffers())
                for name, stacked in (self._parameters | self._buffers).items():
                    stacked[number].copy_(tensors[name])
                for name, stacked in self._parameters.items():
                    before = training.optimizer.state.get(tensors[name], {})
                    for key, value in self._optimizer.state[stacked].items():
                        part = value if key == "step" else value[number]
                        part.copy_(before[key]) if key in before else part.zero_()
        self._step.fill_(self.trainings[0].step)

    def _decide(self, step: int) -> None:
        """Hand what is decided on the host for the steps from `step` on to the device."""
        self._place.zero_()
        decided = self._ahead[1] if self._ahead is not None and self._ahead[0] == step else self._decided(step)
        for tensor, values in zip((self._chosen, self._rates, self._shares, self._others), decided, strict=True):
            tensor.copy_(values)

    def _decided(self, step: int) -> list[Tensor]:
        """Return what is decided on the host for the next steps: pixels, rates, and mixup's shares and partners."""
        chosen = np.stack([training.batches.take(step, self.block) for training in self.trainings], 1)
        rates = np.array([self.trainings[0].rate(step + number) for number in range(self.block)], np.float32)
        shares, others = np.zeros((self.block, len(self.trainings), 1, 1), np.float32), np.zeros_like(chosen)
        if self._settings.mixup:
            for number, of_seed in np.ndindex(chosen.shape[:2]):
                augmentation = self.trainings[of_seed].augmentation
                shares[number, of_seed], others[number, of_seed] = augmentation.mixture(chosen.shape[2], step + number)
        return [torch.from_numpy(values) for values in (chosen, rates, shares, others)]

    def _batch(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return changed spectra `(V, B, P², L)`, targets `(V, B, K)` and weights `(V, B)`, None if all count alike."""
        spectra = self._batches.gathered(chosen)
        targets = self._one_hot.gather(1, chosen[..., None].expand(-1, -1, self._one_hot.shape[2]))
        weights = None if self._weights is None else self._weights.gather(1, chosen)
        if self._settings.mixup:
            share, other = (tensor.index_select(0, self._place)[0] for tensor in (self._shares, self._others))
            seed = torch.arange(len(other), device=self._device)[:, None]
            spectra = spectra[seed, other].lerp(spectra, share[..., None])
            targets = targets[seed, other].lerp(targets, share)
            weights = None if weights is None else weights[seed, other].lerp(weights, share[..., 0])
        return spectra, targets, weights

    def _losses(self) -> tuple[Tensor, Tensor]:
        """Return each seed's loss of the step that is next, `(V,)`, and the share that it classifies right, `(V,)`."""
        spectra, targets, weights = self._batch(self._chosen.index_select(0, self._place)[0])
        drawn = [self._batches.uniform(call, shape) for call, shape in enumerate(self._dropouts)]
        logits = torch.vmap(self._logits)(self._parameters, self._buffers, spectra, drawn)  # (V, B, K)
        accuracies = (logits.detach().argmax(2) == targets.argmax(2)).float().mean(1)
        return self._loss(logits, targets, weights), accuracies

    def _do_step(self) -> None:
        """Do one step with what is on the device; the same launches every time."""
        for group in self._optimizer.param_groups:
            group["lr"].copy_(self._rates.index_select(0, self._place)[0])
        self._optimizer.zero_grad(set_to_none=True)
        losses, accuracies = self._losses()
        losses.sum().backward()
        self._optimizer.step()
        self._results.index_copy_(0, self._place, torch.stack([losses.detach(), accuracies], 1)[None])
        self._place += 1
        self._step += 1

    def _logits(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], spectra: Tensor, drawn: list[Tensor]
    ) -> Tensor:
        """Return one seed's logits `(B, K)` of its batch `(B, P², L)`."""
        with StackedLayers(), GivenDropout(lambda call, _: drawn[call]):
            return torch.func.functional_call(self._network, (parameters, buffers), (as_input(spectra),))

    def _dropout_shapes(self) -> list[torch.Size]:
        """Return the shapes that a pass through the network calls dropout with."""
        shapes: list[torch.Size] = []
        example = self._batches.values.new_zeros(self._settings.batch_size, *self._batches.neighbourhoods.shape[2:])
        example = example[..., None].expand(-1, -1, self._batches.values.shape[2])

        def noted(_: int, shape: torch.Size) -> Tensor:
            shapes.append(shape)
            return torch.zeros(shape, device=self._device)

        with torch.no_grad(), GivenDropout(noted):
            parameters = {name: stacked[0] for name, stacked in self._parameters.items()}
            buffers = {name: stacked[0].clone() for name, stacked in self._buffers.items()}
            torch.func.functional_call(self._network, (parameters, buffers), (as_input(example),))
        return shapes

    def _check(self) -> None:
        """Compare a step of the last seed with the plain version; raises where loss or gradients differ."""
        training = self.trainings[-1]
        self._decide(training.step)
        losses, _ = self._losses()
        learned = [name for name, stacked in self._parameters.items() if stacked.requires_grad]
        found = torch.autograd.grad(losses[-1], [self._parameters[name] for name in learned], materialize_grads=True)
        network = copy.deepcopy(training.network)  # a pass may change its buffers
        loss, _ = loss_of_step(training, network, self._chosen[0, -1])
        parameters = dict(network.named_parameters())
        expected = torch.autograd.grad(loss, [parameters[name] for name in learned], materialize_grads=True)
        plain = torch.cat([loss.detach()[None], *(gradient.flatten() for gradient in expected)])
        joint = torch.cat([losses[-1:].detach(), *(gradient[-1].flatten() for gradient in found)])
        error = ((joint - plain).norm() / plain.norm()).item()
        if not error < _TOLERANCE:
            raise RuntimeError(f"the kernels for several seeds fail their self-check: they are off by {error:.1e}")

    def _record(self) -> torch.cuda.CUDAGraph | None:
        """Record the step; elsewhere than on a GPU there is no record, and steps are done one kernel after the other.

        The step is done a few times for that, which changes weights; `_load` puts them right.
        """
        if self._device.type != "cuda":
            self._do_step()
            return None
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._do_step()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._do_step()
        return graph


def _stacked(trainings: list[Training], named: Callable[[nn.Module], Any]) -> dict[str, Tensor]:
    """Stack what the networks call alike, `(V, …)`."""
    parts = [dict(named(training.network)) for training in trainings]
    return {name: torch.stack([part[name].detach() for part in parts]) for name in parts[0]}
