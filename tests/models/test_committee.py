from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spectralmamba.models import create_model, model_size
from spectralmamba.models.committee import (
    _VOTE,
    Committee,
    KernelSmoother,
    LabelPropagation,
    SupportVectorMachine,
)

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


# Of smoothers, logits up to 20 follow exponents of up to 120, in float32; of the sharp view, of up to some hundreds.
@pytest.mark.parametrize(("kind", "tolerance"), [("machine", 1e-5), ("smoother", 1e-4), ("propagation", 1e-3)])
@pytest.mark.parametrize("patch", [3, 7])
def test_a_companion_sees_the_mean_of_a_patch(patch: int, kind: str, tolerance: float):
    make: dict[str, Callable[[int], nn.Module]] = {
        "machine": random_machine,
        "smoother": random_smoother,
        "propagation": random_propagation,
    }
    companion = make[kind](3)
    patches = torch.randn(4, BANDS, patch, patch, generator=torch.Generator().manual_seed(2))
    of_means = companion(patches.flatten(2).mean(2))
    torch.testing.assert_close(companion(patches), of_means, rtol=tolerance, atol=tolerance)
    turned = patches.rot90(1, (2, 3)).flip(2)
    torch.testing.assert_close(companion(turned), companion(patches), rtol=tolerance, atol=tolerance)


def test_a_spectrum_like_no_other_is_decided_by_the_intercepts():
    machine = random_machine(3)
    for far in (1e3, 1e9, 1e18):
        torch.testing.assert_close(machine.decisions(torch.full((1, BANDS), far))[0], machine.intercepts)


def test_a_spectrum_equal_to_a_support_vector_has_the_whole_of_its_kernel():
    machine = random_machine(2, support_vectors=1)
    there = machine.support / machine.inverse_sd + machine.mean
    torch.testing.assert_close(machine.decisions(there), machine.coefficients + machine.intercepts)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_the_committee_gives_the_mean_of_networks_and_machines_probabilities(classes: int):
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


# The kernel smoother -----------------------------------------------------------------------------


def random_smoother(classes: int, nodes: int = 13, bands: int = BANDS, seed: int = 0) -> KernelSmoother:
    """A smoother whose nodes have the spread that label propagation assumes, γ 60 / L, and that finds no pixel remote."""
    smoother, random = KernelSmoother(bands, classes, nodes), torch.Generator().manual_seed(seed)
    smoother.support.copy_(torch.randn(nodes, bands, generator=random))
    smoother.shares.copy_(torch.randn(nodes, classes, generator=random).mul(3).softmax(1))
    smoother.gamma.fill_(60 / bands)
    smoother.spacing.fill_(torch.inf)
    return smoother


def kernel_mean(smoother: KernelSmoother, x: Tensor) -> Tensor:
    """The smoother's probabilities `(B, K)` of spectra `(B, L)` by their definition in float64."""
    nodes = smoother.support.double()
    exponents = -smoother.gamma.double() * (x.double()[:, None] - nodes).square().sum(2)
    weights = torch.exp(exponents - exponents.max(1, keepdim=True).values)
    return weights @ smoother.shares.double() / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("classes", [2, 3, 16])
@pytest.mark.parametrize("bands", [1, 11, 200])
def test_a_smoother_gives_the_mean_of_its_nodes_shares_by_the_kernel(bands: int, classes: int):
    smoother = random_smoother(classes, bands=bands)
    x = torch.randn(40, bands, generator=torch.Generator().manual_seed(1))
    x[20:] = smoother.support[torch.arange(20) % 13] + 0.1 * x[20:]  # near nodes, where several or one of them count
    found = smoother(x)
    # Exponents are off by γ (|x|² + |s|²) ε, and γ L is 60; probabilities follow at most half as fast.
    torch.testing.assert_close(found.exp().double(), kernel_mean(smoother, x), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(40), rtol=0, atol=1e-6)


def test_a_spectrum_equal_to_a_node_far_from_the_others_has_its_shares():
    smoother = random_smoother(3)
    smoother.support.mul_(5)
    torch.testing.assert_close(smoother(smoother.support).exp(), smoother.shares, rtol=1e-5, atol=1e-6)


def test_where_all_nodes_are_the_same_their_shares_are_averaged():
    smoother = random_smoother(3)
    smoother.support.copy_(smoother.support[:1].expand_as(smoother.support).clone())
    torch.testing.assert_close(smoother(spectra()).exp(), smoother.shares.mean(0).expand(5, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bands", [2, 200])
@pytest.mark.parametrize("far", [1e2, 1e3, 1e4, 1e6, 1e9, 1e18])
def test_far_from_all_nodes_the_nearest_one_decides(far: float, bands: int):
    smoother = KernelSmoother(bands, 3, 3)
    smoother.support[1], smoother.support[2] = 1, -1
    smoother.shares.copy_(torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
    smoother.gamma.fill_(60 / bands)
    x = far * torch.stack([torch.ones(bands), -torch.ones(bands), torch.linspace(0.5, 1.5, bands)])
    found = smoother(x)
    assert found.isfinite().all()
    torch.testing.assert_close(found.exp(), smoother.shares[[1, 2, 1]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [1e2, 1e3, 1e4, 1e6])
def test_a_band_in_which_nodes_do_not_differ_decides_nothing_whatever_a_spectrum_has_there(value: float):
    smoother = random_smoother(3)
    smoother.support[:, 0] = 0
    x = spectra(30)
    x[:, 0] = 0
    expected = smoother(x).exp()
    x[:, 0] = value
    torch.testing.assert_close(smoother(x).exp(), expected, rtol=0, atol=1e-4)


def test_a_class_that_no_node_knows_has_finite_logits():
    smoother = random_smoother(2)
    smoother.shares.copy_(torch.tensor([1.0, 0.0]).expand_as(smoother.shares))
    propagation = LabelPropagation(BANDS, 2, 13)
    propagation.blunt = propagation.sharp = smoother
    committee = Committee(Fixed([0.0, 0.0]), propagation)
    for module, expected in ((smoother, [1.0, 0.0]), (propagation, [1.0, 0.0]), (committee, [0.875, 0.125])):
        found = module(spectra())
        assert found.isfinite().all()
        torch.testing.assert_close(found.softmax(1), torch.tensor([expected] * 5), rtol=0, atol=1e-6)


def test_remoteness_is_the_distance_to_the_nearest_node_in_units_of_its_distance_to_the_next():
    smoother = random_smoother(3, nodes=2)
    smoother.support.copy_(torch.tensor([[0.0], [4.0]]).expand(2, BANDS))
    smoother.spacing.copy_(torch.tensor([2.0, 8.0]) * BANDS**0.5)
    x = torch.tensor([0.0, -1.0, 1.0, 3.0, 4.0, 12.0, 20.0])[:, None].expand(-1, BANDS)
    remoteness = smoother.judge(x)[1]
    torch.testing.assert_close(remoteness, torch.tensor([0.0, 0.5, 0.5, 0.125, 0.0, 1.0, 2.0]), rtol=1e-5, atol=1e-3)
    patches = x[:, :, None, None].repeat(1, 1, 3, 3)
    patches[:, :, 0, 0], patches[:, :, 2, 2] = 5.0, 2 * x - 5.0  # another patch of the same mean
    torch.testing.assert_close(smoother.judge(patches)[1], remoteness, rtol=1e-5, atol=1e-3)


# Label propagation -------------------------------------------------------------------------------


def random_propagation(classes: int, nodes: int = 13, remoteness: float = 0.0, seed: int = 0) -> LabelPropagation:
    """Label propagation whose views differ in all they have; each of the spectra of `spectra` is as remote as told."""
    propagation, random = LabelPropagation(BANDS, classes, nodes), torch.Generator().manual_seed(seed + 100)
    propagation.blunt, propagation.sharp = (random_smoother(classes, nodes, seed=seed + view) for view in range(2))
    propagation.sharpening.copy_(torch.eye(BANDS) + 0.5 * torch.randn(BANDS, BANDS, generator=random))
    if remoteness:
        propagation.blunt.spacing.fill_(1)
        propagation.blunt.spacing.fill_(float(propagation.blunt.judge(spectra(1))[1]) / remoteness)
    return propagation


def views(propagation: LabelPropagation, x: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities `(B, K)` of the blunt and of the sharp view of spectra `(B, L)` by their definition in float64.

    Without a view of the middle, the sharp view is steadied by the blunt one.
    """
    blunt, sharp = (
        kernel_mean(propagation.blunt, x),
        kernel_mean(propagation.sharp, x.double() @ propagation.sharpening.double()),
    )
    return blunt, (2 * sharp + blunt) / 3


REMOTENESS = [(0.0, 1.0), (0.9, 1.0), (1.0, 1.0), (2.0, 1 / 8), (5.0, 1 / 125), (1e20, 0.0)]
"""How remote a pixel is, and how familiar that is."""


@pytest.mark.parametrize("patch", [1, 3])
@pytest.mark.parametrize("classes", [2, 9])
def test_label_propagation_sees_spectra_bluntly_and_sharpened(classes: int, patch: int):
    propagation, x = random_propagation(classes), spectra(30)
    x[10:20] = propagation.blunt.support[:10] + 0.1 * x[10:20]  # near nodes of one view or the other
    x[20:] = torch.linalg.solve(propagation.sharpening, propagation.sharp.support[:10], left=False) + 0.1 * x[20:]
    seen = x if patch == 1 else x[:, :, None, None].repeat(1, 1, patch, patch)
    if patch > 1:
        seen[:, :, 0, 0], seen[:, :, 2, 2] = 5.0, 2 * x - 5.0  # another patch of the same mean
    blunt, sharp, familiarity = propagation.judge(seen)
    assert torch.equal(familiarity, torch.ones(30, 1))
    for found, expected in zip((blunt, sharp), views(propagation, x), strict=True):
        # Of the sharp view exponents reach some hundreds.
        torch.testing.assert_close(found.exp().double(), expected, rtol=0, atol=1e-3)
    assert (blunt.exp() - sharp.exp()).abs().amax(1).median() > 0.1


@pytest.mark.parametrize(("remoteness", "familiarity"), REMOTENESS)
def test_familiarity_is_that_of_the_blunt_view(remoteness: float, familiarity: float):
    propagation = LabelPropagation(BANDS, 2, 1)
    propagation.blunt.spacing.fill_(BANDS**0.5)
    propagation.sharp.spacing.fill_(1e-3)
    propagation.sharpening.mul_(7)
    found = propagation.judge(torch.full((2, BANDS), remoteness))[2]
    torch.testing.assert_close(found, torch.full((2, 1), familiarity), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("remoteness", "familiarity"), REMOTENESS)
def test_alone_the_sharp_view_counts_as_much_as_a_pixel_is_familiar(remoteness: float, familiarity: float):
    propagation, x = random_propagation(3, remoteness=remoteness), spectra(1)
    blunt, sharp, _ = propagation.judge(x)
    expected = familiarity * sharp.exp() + (1 - familiarity) * blunt.exp()
    found = propagation(x)
    assert not found.isnan().any()
    torch.testing.assert_close(found.softmax(1), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(1), rtol=0, atol=1e-6)
    assert (blunt.exp() - sharp.exp()).abs().max() > 0.1


@pytest.mark.parametrize("classes", [2, 9])
def test_the_committee_gives_the_weighted_mean_of_networks_and_both_views_probabilities(classes: int):
    network, propagation = Fixed(torch.linspace(-2, 3, classes).tolist()), random_propagation(classes)
    x = spectra(30)
    propagation.blunt.spacing.fill_(3)  # of the 30 some are familiar and others not
    blunt, sharp, familiarity = propagation.judge(x)
    assert 0.1 < (familiarity == 1).float().mean() < 0.9
    expected = familiarity * (network(x).softmax(1) / 4 + 3 / 4 * sharp.exp()) + (1 - familiarity) * blunt.exp()
    found = Committee(network, propagation)(x)
    torch.testing.assert_close(found.softmax(1), expected, rtol=5e-6, atol=1e-7)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(30), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("remoteness", "familiarity"), REMOTENESS)
def test_network_and_sharp_view_count_less_the_more_remote_a_pixel_is(remoteness: float, familiarity: float):
    propagation = LabelPropagation(BANDS, 3, 1)
    propagation.blunt.spacing.fill_(BANDS**0.5)
    propagation.blunt.shares.copy_(torch.tensor([[0.9, 0.06, 0.04]]))
    propagation.sharp.shares.copy_(torch.tensor([[0.1, 0.7, 0.2]]))
    propagation.sharp.support.fill_(1)
    found = Committee(Fixed([0.0, 0.0, 1000.0]), propagation)(torch.full((1, BANDS), remoteness))
    assert not found.isnan().any()
    network, sharp = 0.25 * familiarity, 0.5 * familiarity
    blunt = 1 - network - sharp
    expected = torch.tensor(
        [[0.1 * sharp + 0.9 * blunt, 0.7 * sharp + 0.06 * blunt, network + 0.2 * sharp + 0.04 * blunt]]
    )
    torch.testing.assert_close(found.softmax(1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("far", [1e2, 1e6, 1e9, 1e18])
def test_far_from_all_nodes_the_nearest_ones_shares_are_the_committees(far: float):
    propagation = random_propagation(3, nodes=3)
    propagation.blunt.support[:] = torch.tensor([0.0, 1.0, -1.0])[:, None]
    propagation.blunt.spacing.fill_(BANDS**0.5)
    x = far * torch.stack([torch.ones(BANDS), -torch.ones(BANDS), torch.linspace(0.5, 1.5, BANDS)])
    found = Committee(Fixed([0.0, 1000.0, 0.0]), propagation)(x)
    assert found.isfinite().all()
    torch.testing.assert_close(found.exp(), propagation.blunt.shares[[1, 2, 1]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 3, 5])
def test_label_propagations_multiply_accumulates_are_a_kernel_and_shares_a_view_and_the_sharpening(patch: int):
    network = create_model("spectral_mamba", bands=BANDS, classes=4, patch=patch)
    bare = model_size(network, BANDS, patch)
    whole = model_size(Committee(network, LabelPropagation(BANDS, 4, 13, patch)), BANDS, patch)
    sharp = 1 if patch <= 3 else 2
    assert whole.multiply_accumulates - bare.multiply_accumulates == (1 + sharp) * 13 * (BANDS + 4) + sharp * BANDS**2
    assert whole.parameters == bare.parameters


def test_of_wide_patches_the_sharp_view_is_the_mean_of_the_whole_patchs_and_of_its_middles():
    plain, wide = random_propagation(4), LabelPropagation(BANDS, 4, 13, patch=7)
    assert plain.near is None
    assert LabelPropagation(BANDS, 4, 13, patch=3).near is None
    wide.near = random_smoother(4, 13, seed=9)
    for name in ("blunt", "sharp", "sharpening"):
        setattr(wide, name, getattr(plain, name))
    x = torch.randn(20, BANDS, 7, 7, generator=torch.Generator().manual_seed(1))
    (blunt, sharp, familiarity), (blunt_too, _, familiarity_too) = wide.judge(x), plain.judge(x)
    assert torch.equal(blunt, blunt_too)
    assert torch.equal(familiarity, familiarity_too)
    whole = kernel_mean(plain.sharp, x.double().mean((2, 3)) @ plain.sharpening.double())
    middle = kernel_mean(wide.near, x[:, :, 2:5, 2:5].double().mean((2, 3)) @ wide.sharpening.double())
    torch.testing.assert_close(sharp.exp().double(), (whole + middle) / 2, rtol=1e-4, atol=1e-6)
    assert (whole - middle).abs().max() > 0.1


def test_label_propagation_knows_nothing_before_it_has_learned():
    found = LabelPropagation(BANDS, 4, 13)(spectra())
    torch.testing.assert_close(found.exp(), torch.full((5, 4), 1 / 4))
