"""Patches cut out one by one and patches that lie in an image are the same to every network."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from spectralmamba.models import create_model
from spectralmamba.models.committee import Committee, LabelPropagation, LogisticRegression, SupportVectorMachine
from spectralmamba.models.novelty import NoveltyScore
from spectralmamba.models.patches import GatheredPatches, ImagePatches, as_patches, box_sums, takes_patches
from spectralmamba.models.spectral_mamba import GatedMerging, SharedGateMerging

BANDS, CLASSES = 13, 4


def image_of(height: int, width: int, seed: int = 0) -> Tensor:
    """Random spectra `(H, W, L)`."""
    return torch.randn(height, width, BANDS, generator=torch.Generator().manual_seed(seed))


def all_patches(image: Tensor, patch: int) -> tuple[Tensor, ImagePatches]:
    """Every patch that lies whole in an image, gathered as a tensor, and left where it is."""
    gathered = image.unfold(0, patch, 1).unfold(1, patch, 1).flatten(0, 1)  # (B, L, P, P)
    reach = patch // 2
    inside = [torch.arange(reach, size - reach) for size in image.shape[:2]]
    rows, columns = torch.meshgrid(*inside, indexing="ij")
    return gathered if patch > 1 else gathered[:, :, 0, 0], ImagePatches(
        image, rows.flatten(), columns.flatten(), patch
    )


def randomised(module: nn.Module) -> nn.Module:
    """Give all parameters and buffers random values, as nothing that starts at zero should hide a difference."""
    generator = torch.Generator().manual_seed(1)
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        tensor.data = torch.randn(tensor.shape, generator=generator) * 0.5
    for name, tensor in module.named_buffers():
        if name.endswith(("spacing", "gamma", "shares")):
            tensor.data = tensor.data.abs() + 0.1
        if name.endswith("levels"):
            tensor.data = torch.linspace(0, 100, len(tensor))
    return module.eval()


@pytest.mark.parametrize("shape", [(9, 9), (9, 14), (12, 9)])
@pytest.mark.parametrize("patch", [3, 5, 7, 9])
@pytest.mark.parametrize("build", [GatedMerging, SharedGateMerging])
def test_an_image_merges_into_what_its_patches_merge_into(
    build: type[nn.Module], patch: int, shape: tuple[int, int]
) -> None:
    merging, (gathered, _) = randomised(build(BANDS)), all_patches(image := image_of(*shape), patch)
    assert isinstance(merging, GatedMerging | SharedGateMerging)
    found = merging.of_image(image, patch)
    assert found.shape == (shape[0] - patch + 1, shape[1] - patch + 1, BANDS)
    torch.testing.assert_close(found.flatten(0, 1), merging(gathered), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("patch", [1, 3, 5, 7])
def test_logits_with_a_shared_gate_are_the_same(patch: int) -> None:
    network = randomised(
        create_model("spectral_mamba", bands=BANDS, classes=CLASSES, patch=patch, gate="shared")
    ).double()
    gathered, in_image = all_patches(image_of(9, 10).double(), patch)
    with torch.no_grad():
        torch.testing.assert_close(network(in_image), network(gathered), rtol=0, atol=1e-10)


@pytest.mark.parametrize("orientation", ["neighbours", "pieces"])
@pytest.mark.parametrize("piece", [1, 4, 6, BANDS])
@pytest.mark.parametrize("linear_path", ["none", "centre", "mean", "both"])
@pytest.mark.parametrize("patch", [1, 3, 5, 7])
def test_logits_of_patches_in_an_image_are_those_of_gathered_ones(
    patch: int, linear_path: str, piece: int, orientation: str
) -> None:
    options = {"linear_path": linear_path, "piece": piece, "orientation": orientation}
    network = randomised(create_model("spectral_mamba", bands=BANDS, classes=CLASSES, patch=patch, **options))
    gathered, in_image = all_patches(image_of(9, 10), patch)
    with torch.no_grad():
        torch.testing.assert_close(network(in_image), network(gathered), rtol=0, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 3, 5, 7])
@pytest.mark.parametrize(
    "build",
    [
        lambda patch: LabelPropagation(BANDS, CLASSES, 5, patch),
        lambda _: SupportVectorMachine(BANDS, CLASSES, 5),
        lambda _: LogisticRegression(BANDS, CLASSES, CLASSES),
        lambda _: NoveltyScore(BANDS, CLASSES),
        lambda patch: Committee(
            create_model("spectral_mamba", bands=BANDS, classes=CLASSES, patch=patch),
            LabelPropagation(BANDS, CLASSES, 5, patch),
        ),
    ],
)
def test_what_else_decides_sees_patches_in_an_image_as_gathered_ones(build: type[nn.Module], patch: int) -> None:
    module = randomised(build(patch))
    gathered, in_image = all_patches(image_of(9, 10), patch)
    assert takes_patches(module)
    with torch.no_grad():
        # Of a score of 1 000 levels one may be the next.
        atol = 1.1e-3 if isinstance(module, NoveltyScore) else 2e-4
        torch.testing.assert_close(module(in_image), module(gathered), rtol=1e-4, atol=atol)


@pytest.mark.parametrize("width", [None, 1, 3, 5])
def test_centre_and_means_are_the_same(width: int | None) -> None:
    gathered, in_image = all_patches(image_of(8, 9), 5)
    torch.testing.assert_close(in_image.centre(), as_patches(gathered).centre(), rtol=0, atol=0)
    torch.testing.assert_close(in_image.mean(width), GatheredPatches(gathered).mean(width), rtol=1e-5, atol=1e-6)


def test_of_single_pixels_centre_and_mean_are_the_spectra() -> None:
    spectra = image_of(2, 3).flatten(0, 1)
    assert as_patches(spectra).centre() is spectra
    assert as_patches(spectra).mean() is spectra


def test_parts_have_what_the_whole_has_and_share_what_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    merging = randomised(GatedMerging(BANDS))
    assert isinstance(merging, GatedMerging)
    _, in_image = all_patches(image_of(9, 9), 3)
    whole = [in_image.merged(merging), in_image.mean(), in_image.centre()]
    monkeypatch.setattr(merging, "of_image", None)
    parts = [[part.merged(merging), part.mean(), part.centre()] for part in in_image.split(10)]
    for expected, found in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(found), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (5, 1), (1, 4), (9, 7)])
def test_box_sums_are_sums_of_windows_and_the_same_bits_wherever_the_image_begins(height: int, width: int) -> None:
    image = image_of(12, 11)
    found = box_sums(image, height, width)
    expected = image.double().unfold(0, height, 1).unfold(1, width, 1).sum((3, 4))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(box_sums(image[2:, 1:], height, width), found[2:, 1:])


def test_a_network_of_tensors_alone_says_so() -> None:
    linear = nn.Linear(BANDS, CLASSES)
    assert not takes_patches(linear)
    assert not takes_patches(Committee(linear, LabelPropagation(BANDS, CLASSES, 5)))
