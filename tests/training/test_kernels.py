"""The kernels that make batches, on the CPU by Triton's interpreter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

if torch.cuda.is_available():
    pytest.skip("the kernels are compiled where there is a GPU", allow_module_level=True)
pytest.importorskip("triton", reason="triton is not installed")

from spectralmamba.settings import Settings
from spectralmamba.training.augmentation import Augmentation, ClassDifferences
from spectralmamba.training.draws import Purpose, uniform, words
from spectralmamba.training.kernels import JointBatches

STEP, BATCH = 4, 2
THREE_CLASSES = (0, 1, 2, 0, 1)


@dataclasses.dataclass
class Seed:
    """What one seed's batches are made of."""

    augmentation: Augmentation
    neighbourhoods: Tensor
    chosen: Tensor

    def plain(self) -> Tensor:
        """The plain version's batch."""
        changes = self.augmentation.draw(len(self.chosen), STEP)
        turned = self.augmentation.turn(self.neighbourhoods[self.chosen], changes)
        return self.augmentation.change(self.augmentation.values[turned], changes, STEP)


def make(
    *targets: tuple[int, ...],
    bands: int = 20,
    scenes: int = 1,
    pairs: tuple[int, ...] = (30,),
    seeds: tuple[int, ...] = (0, 3, 2**32 - 1),
    **changes: object,
) -> list[Seed]:
    """Make a seed for each row of targets; they take turns with the scenes, of which each has so many pairs."""
    generator = torch.Generator().manual_seed(0)
    settings = Settings(patch=3).replace(**changes)
    values = [torch.randn(40, bands, generator=generator) for _ in range(scenes)]
    neighbours = [torch.randint(40, (count, 2), generator=generator) for count in pairs]
    made = []
    for number, (seed, classes) in enumerate(zip(seeds, targets, strict=False)):
        means = torch.randn(len(classes), bands, generator=generator)
        augmentation = Augmentation(
            settings.replace(seed=seed),
            values[number % scenes],
            neighbours[number % scenes],
            ClassDifferences(means, torch.tensor(classes)),
        )
        neighbourhoods = torch.randint(40, (len(classes), settings.patch**2), generator=generator)
        made.append(Seed(augmentation, neighbourhoods, torch.randint(len(classes), (BATCH,), generator=generator)))
    return made


def joint(seeds: list[Seed]) -> JointBatches:
    return JointBatches.of(
        [seed.augmentation for seed in seeds], [seed.neighbourhoods for seed in seeds], torch.tensor([STEP])
    )


TWO_SEEDS = (THREE_CLASSES, (0, 0, 1, 1, 2, 2, 2))  # another number of training pixels each
NOTHING = {"turns_and_flips": False} | dict.fromkeys(
    ("brightness", "offset", "noise", "neighbour_difference", "class_difference", "band_dropout"), 0
)
CASES = {
    "patches": make(*TWO_SEEDS),
    "single pixels": make(*TWO_SEEDS, patch=1),
    "three seeds": make(*TWO_SEEDS, (1, 0), patch=1),
    "one seed": make(THREE_CLASSES, patch=1, seeds=(7,)),
    "many bands": make(*TWO_SEEDS, bands=300),
    "many bands of single pixels": make(*TWO_SEEDS, bands=300, patch=1),
    "few bands": make(*TWO_SEEDS, bands=1, patch=1),
    "other scenes": make(*TWO_SEEDS, scenes=2, pairs=(30, 7)),
    "two seeds of one scene and one of another": make(*TWO_SEEDS, (0, 1), patch=1, scenes=2, pairs=(7, 30)),
    "no pairs": make(*TWO_SEEDS, pairs=(0,), patch=1),
    "no pairs in one scene": make(*TWO_SEEDS, scenes=2, pairs=(0, 5), patch=1),
    "classes of a single pixel": make((0, 1, 1), (0, 1, 2), patch=1),
    "no turns": make(*TWO_SEEDS, turns_and_flips=False),
    "turns alone": make(*TWO_SEEDS, **(NOTHING | {"turns_and_flips": True})),
    "no change": make(*TWO_SEEDS, patch=1, **NOTHING),
    "blocks of one band": make(*TWO_SEEDS, patch=1, band_block=1, band_dropout=0.5),
    "blocks as wide as the spectrum": make(*TWO_SEEDS, patch=1, band_block=20, band_dropout=0.5),
    "blocks wider than the spectrum": make(*TWO_SEEDS, patch=1, band_block=10**12, band_dropout=0.5),
} | {f"no {name}": make(*TWO_SEEDS, patch=1, **{name: 0}) for name in NOTHING if name != "turns_and_flips"}


@pytest.mark.parametrize("case", CASES)
def test_batches_are_those_of_the_plain_version(case: str):
    seeds = CASES[case]
    found = joint(seeds).gathered(torch.stack([seed.chosen for seed in seeds]))
    for of_seed, seed in zip(found, seeds, strict=True):
        # float32 sums of five numbers of size up to 10, in another order.
        torch.testing.assert_close(of_seed, seed.plain(), rtol=0, atol=1e-5)


def test_a_scene_that_seeds_share_is_kept_once():
    shared, apart = joint(make(*TWO_SEEDS, (0, 1))), joint(make(*TWO_SEEDS, (0, 1), scenes=2, pairs=(3, 3)))
    assert len(shared.values) == 1
    assert shared.scene.tolist() == [0, 0, 0]
    assert len(apart.values) == 2
    assert apart.scene.tolist() == [0, 1, 0]


def test_batches_follow_the_step_that_is_on_the_device():
    seeds = make(*TWO_SEEDS, patch=1)
    chosen = torch.stack([seed.chosen for seed in seeds])
    batches = joint(seeds)
    before = batches.gathered(chosen)
    batches.step.add_(1)
    assert not (batches.gathered(chosen) == before).flatten(2).all(2).any()
    batches.step.sub_(1)
    assert torch.equal(batches.gathered(chosen), before)


@pytest.mark.parametrize("call", [0, 1, 5])
@pytest.mark.parametrize("shape", [(1,), (6, 5), (2, 3, 100), (1025,)])
def test_dropout_has_the_numbers_of_seed_step_and_call(call: int, shape: tuple[int, ...]):
    seeds = make(*TWO_SEEDS, patch=1)
    size = torch.Size(shape)
    found = joint(seeds).uniform(call, size)
    assert found.shape == (2, *shape)
    for of_seed, seed in zip(found, (0, 3), strict=True):
        expected = uniform(words(seed, Purpose.DROPOUT, size.numel(), step=STEP, call=call))
        assert torch.equal(of_seed.flatten(), torch.from_numpy(expected))
