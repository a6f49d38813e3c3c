from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from spectralmamba.models import create_model, model_size
from spectralmamba.models.committee import _VOTE, Committee, SupportVectorMachine

BANDS = 11


def random_machine(classes: int, support_vectors: int = 13, seed: int = 0) -> SupportVectorMachine:
    machine = SupportVectorMachine(BANDS, classes, support_vectors)
    random = torch.Generator().manual_seed(seed)
    for buffer in machine.buffers():
        buffer.copy_(torch.randn(buffer.shape, generator=random))
    machine.inverse_sd.abs_().add_(0.5)
    machine.gamma.fill_(1 / BANDS)
    return machine


def deciding(intercepts: list[float], classes: int) -> SupportVectorMachine:
    """A machine whose pairs decide the same whatever they see."""
    machine = SupportVectorMachine(BANDS, classes, 1)
    machine.intercepts.copy_(torch.tensor(intercepts))
    return machine


class Fixed(nn.Module):
    """A network with the same logits for every pixel."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def spectra(count: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(count, BANDS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("intercepts", "won"),
    [
        ([9.0, -9.0, -9.0], [1, 0, 2]),
        ([9.0, 9.0, 9.0], [2, 1, 0]),
        ([-9.0, -9.0, 9.0], [0, 2, 1]),
        ([9.0, 9.0, 9.0, -9.0, 9.0, 9.0], [3, 1, 2, 0]),
    ],
    ids=str,
)
def test_the_class_that_wins_most_pairs_is_the_likeliest(intercepts: list[float], won: list[int]):
    """Pairs are (0, 1), (0, 2), … (1, 2), …; positive is for the first."""
    logits = deciding(intercepts, len(won))(spectra())
    wins = torch.tensor(won, dtype=torch.float32)
    # A decision of 9 is a vote of 1 − 2e-12, and float32 rounds sums of 12 by 1e-6.
    torch.testing.assert_close(logits, (_VOTE * wins).expand(5, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_pairs_that_do_not_know_make_all_classes_equally_likely(classes: int):
    machine = deciding([0.0] * (classes * (classes - 1) // 2), classes)
    torch.testing.assert_close(machine(spectra()).softmax(1), torch.full((5, classes), 1 / classes))


def test_a_clearer_decision_makes_a_class_likelier():
    probabilities = [float(deciding([value], 2)(spectra(1)).softmax(1)[0, 0]) for value in (-1.0, -0.1, 0.0, 0.1, 1.0)]
    assert probabilities == sorted(set(probabilities))
    assert probabilities[2] == 0.5


@pytest.mark.parametrize("classes", [2, 3, 9, 64])
def test_probabilities_of_the_machine_sum_to_one(classes: int):
    found = random_machine(classes)(spectra(50)).softmax(1)
    assert found.shape == (50, classes)
    # float32's 6e-8 a summand.
    torch.testing.assert_close(found.sum(1), torch.ones(50), rtol=0, atol=1e-7 * classes)


@pytest.mark.parametrize("patch", [3, 7])
def test_the_machine_sees_the_mean_of_a_patch(patch: int):
    machine = random_machine(3)
    patches = torch.randn(4, BANDS, patch, patch, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(machine(patches), machine(patches.flatten(2).mean(2)), rtol=1e-5, atol=1e-5)
    turned = patches.rot90(1, (2, 3)).flip(2)
    torch.testing.assert_close(machine(turned), machine(patches), rtol=1e-5, atol=1e-5)


def test_a_spectrum_like_no_other_is_decided_by_the_intercepts():
    machine = random_machine(3)
    for far in (1e3, 1e9, 1e18):
        torch.testing.assert_close(machine.decisions(torch.full((1, BANDS), far))[0], machine.intercepts)


def test_a_spectrum_equal_to_a_support_vector_has_the_whole_of_its_kernel():
    machine = random_machine(2, support_vectors=1)
    there = machine.support / machine.inverse_sd + machine.mean
    torch.testing.assert_close(machine.decisions(there), machine.coefficients + machine.intercepts)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_the_committee_gives_the_mean_of_its_members_probabilities(classes: int):
    network, machine = Fixed(torch.linspace(-2, 3, classes).tolist()), random_machine(classes)
    x = spectra(30)
    expected = (network(x).double().softmax(1) + machine(x).double().softmax(1)) / 2
    found = Committee(network, machine)(x)
    # Logarithms up to 20 in float32 are right to 1e-6, and so are their exponentials, relatively.
    torch.testing.assert_close(found.softmax(1).double(), expected, rtol=5e-6, atol=0)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(30), rtol=0, atol=1e-6)


def test_members_that_are_sure_of_different_classes_leave_half_to_each():
    committee = Committee(Fixed([0.0, 1000.0, 0.0]), deciding([50.0, 50.0, 0.0], 3))
    logits = committee(spectra(1))
    assert logits.isfinite().all()
    machine = float(committee.companion(spectra(1)).softmax(1)[0, 0])
    torch.testing.assert_close(
        logits.softmax(1)[0], torch.tensor([machine / 2, 0.5 + (1 - machine) / 4, (1 - machine) / 4])
    )


def test_a_member_cannot_be_sure_beyond_the_other():
    found = Committee(Fixed([0.0, math.log(3)]), deciding([0.0], 2))(spectra(1)).softmax(1)
    torch.testing.assert_close(found, torch.tensor([[0.375, 0.625]]))


@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("patch", [1, 3])
def test_the_machines_multiply_accumulates_are_its_kernel_its_decisions_and_its_votes(patch: int, classes: int):
    network = create_model("spectral_mamba", bands=BANDS, classes=classes, patch=patch)
    bare = model_size(network, BANDS, patch)
    whole = model_size(Committee(network, random_machine(classes, support_vectors=13)), BANDS, patch)
    pairs = classes * (classes - 1) // 2
    assert whole.multiply_accumulates - bare.multiply_accumulates == 13 * BANDS + 13 * pairs + 2 * pairs * classes
    assert whole.parameters == bare.parameters
