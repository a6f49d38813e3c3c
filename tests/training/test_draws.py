from __future__ import annotations

import itertools

import numpy as np
import pytest

from spectralmamba.training.draws import Purpose, below, generator, uniform, words

HIGHEST = 2**64 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Philox 4×64-10 in Python's whole numbers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        first, second = c0 * 0xD2E7470EE14C6C93, c2 * 0xCA5A826395121157
        c0, c1 = (second >> 64) ^ c1 ^ k0, second & HIGHEST
        c2, c3 = (first >> 64) ^ c3 ^ k1, first & HIGHEST
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & HIGHEST, (k1 + 0xBB67AE8584CAA73B) & HIGHEST
    return [c0, c1, c2, c3]


def test_this_files_philox_is_that_of_its_authors():
    # From the known answers of Random123, kat_vectors.
    assert philox((0, 0, 0, 0), (0, 0)) == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    ]  # fmt: skip
    assert philox((HIGHEST,) * 4, (HIGHEST,) * 2) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize(
    ("seed", "step", "call", "first_block"), [(0, 0, 0, 0), (1, 2, 3, 4), (2**32 - 1, 10**6, 7, 2**40)]
)
def test_words_are_philox_of_seed_purpose_step_and_call(
    purpose: Purpose, seed: int, step: int, call: int, first_block: int
):
    expected = [philox((first_block + block + 1, step, call, 0), (seed, purpose)) for block in range(3)]
    found = words(seed, purpose, 12, step=step, call=call, first_block=first_block)
    assert found.dtype == np.uint64
    assert found.reshape(3, 4).tolist() == expected


def test_every_seed_purpose_step_and_call_has_a_stream_of_its_own():
    drawn = [
        word
        for seed, purpose, step, call in itertools.product(range(3), Purpose, range(3), range(3))
        for word in words(seed, purpose, 4, step=step, call=call).tolist()
    ]
    assert len(set(drawn)) == len(drawn) == 4 * 3 * len(Purpose) * 3 * 3


def test_a_later_block_goes_on_with_the_stream():
    whole = words(5, Purpose.NOISE, 40, step=1, call=2)
    np.testing.assert_array_equal(words(5, Purpose.NOISE, 32, step=1, call=2, first_block=2), whole[8:])
    np.testing.assert_array_equal(words(5, Purpose.NOISE, 7, step=1, call=2), whole[:7])


def test_numpys_generator_of_a_stream_follows_from_seed_purpose_and_step():
    def drawn(seed: int, purpose: Purpose, step: int) -> list[float]:
        return generator(seed, purpose, step=step).random(3).tolist()

    assert drawn(1, Purpose.MIXUP, 2) == drawn(1, Purpose.MIXUP, 2)
    others = [drawn(0, Purpose.MIXUP, 2), drawn(1, Purpose.ORDER, 2), drawn(1, Purpose.MIXUP, 3)]
    assert drawn(1, Purpose.MIXUP, 2) not in others


def test_uniform_numbers_are_from_zero_to_below_one():
    extremes = uniform(np.array([0, 2**40 - 1, 2**40, 2**63, HIGHEST], np.uint64))
    assert extremes.dtype == np.float32
    assert extremes.tolist() == [0, 0, 2**-24, 0.5, 1 - 2**-24]
    drawn = uniform(words(0, Purpose.DROPOUT, 100_000))
    # Shares of a tenth in 100 000 draws: five standard errors.
    share = np.bincount((drawn * 10).astype(int), minlength=10) / 100_000
    np.testing.assert_allclose(share, 0.1, rtol=0, atol=5 * (0.09 / 100_000) ** 0.5)


@pytest.mark.parametrize("limit", [1, 2, 7, 2**16, 2**32 - 1])
def test_numbers_below_a_limit_reach_from_zero_to_it(limit: int):
    found = below(np.array([0, HIGHEST], np.uint64), limit)
    assert found.dtype == np.int64
    assert found.tolist() == [0, limit - 1]
    drawn = below(words(0, Purpose.ORDER, 1000), limit)
    assert drawn.min() >= 0
    assert drawn.max() < limit


def test_numbers_below_a_limit_are_as_likely_as_each_other():
    drawn = below(words(0, Purpose.ORDER, 70_000), 7)
    # Shares of a seventh in 70 000 draws: five standard errors.
    np.testing.assert_allclose(np.bincount(drawn) / 70_000, 1 / 7, rtol=0, atol=5 * (6 / 49 / 70_000) ** 0.5)


def test_each_number_may_have_a_limit_of_its_own():
    limits = np.array([1, 5, 2**32 - 1])
    assert below(np.full(3, HIGHEST, np.uint64), limits).tolist() == (limits - 1).tolist()
    assert below(np.zeros(3, np.uint64), limits).tolist() == [0, 0, 0]
