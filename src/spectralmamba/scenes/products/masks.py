"""What products say of the quality of pixels: which are left out, and how many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from spectralmamba.errors import SceneError

Kind = Literal["cloud", "shadow", "cirrus", "haze", "snow", "saturated", "defective"]

KINDS: tuple[str, ...] = get_args(Kind)
"""What is masked unless it is to be kept."""

BACKGROUND = "background"
"""What lies off the swath, which nothing keeps."""

DEFECTIVE_SHARE = 0.1
"""A pixel is defective if more than this share of its good bands is: single dead detector elements are interpolated, and
leaving out each pixel with one of them would leave out whole columns."""

IMPLAUSIBLE_SHARE = 0.5
"""Above this share of defective pixels the user is told, because a flag may be meant the other way round."""

_STRIP_VALUES = 1 << 24


@dataclass(frozen=True)
class Choices:
    """What the user wants of a product.

    Attributes:
        keep: Kinds of pixels that are not masked.
        water_bands: Keep bands in which water vapour absorbs.
    """

    keep: frozenset[str] = frozenset()
    water_bands: bool = False

    @classmethod
    def of(cls, keep: Iterable[str], water_bands: bool) -> Choices:
        """Return the choices, checked.

        Raises:
            SceneError: There is no such kind.
        """
        kinds = [keep] if isinstance(keep, str) else list(keep)
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise SceneError(
                "there is no such mask",
                found=", ".join(map(repr, unknown)),
                expected=", ".join(KINDS),
                remedy="Give --keep some of these, or nothing.",
            )
        return cls(frozenset(kinds), water_bands)

    def masks(self, *kinds: str) -> bool:
        """Tell whether any of these kinds is to be masked."""
        return not self.keep.issuperset(kinds)


class PixelMask:
    """The pixels of a scene that are left out, and counts of them by kind.

    Args:
        shape: Rows and columns.
        choices: Which kinds are kept.
    """

    def __init__(self, shape: tuple[int, int], choices: Choices) -> None:
        self.shape, self.choices = shape, choices
        self.background = np.zeros(shape, bool)
        self.left_out = np.zeros(shape, bool)
        self.flagged: dict[str, int] = {}
        self.notes: list[str] = []

    def add(self, kind: str, flagged: np.ndarray) -> None:
        """Leave out the flagged pixels `(H, W)` unless they are kept; background comes first and is not counted again."""
        if kind == BACKGROUND:
            self.background |= flagged
        elif kind in self.choices.keep:
            return
        else:
            flagged = flagged & ~self.background
        self.left_out |= flagged
        self.flagged[kind] = self.flagged.get(kind, 0) + int(flagged.sum())

    def add_defective(self, bands: Callable[[slice], np.ndarray], count: int, block: int) -> None:
        """Leave out pixels of which more than `DEFECTIVE_SHARE` of the good bands are defective.

        Args:
            bands: Tells of rows in how many good bands each pixel is defective, `(h, W)`.
            count: How many good bands there are.
            block: Rows that are cheap to read together.
        """
        if "defective" in self.choices.keep or not count:
            return
        defective = np.zeros(self.shape, bool)
        for rows in strips(self.shape, count, block):
            defective[rows] = bands(rows) > DEFECTIVE_SHARE * count
        self.add("defective", defective)
        seen = self.shape[0] * self.shape[1] - int(self.background.sum())
        if self.flagged["defective"] > IMPLAUSIBLE_SHARE * seen:
            self.notes.append(
                f"{self.flagged['defective']} of {seen} pixels are called defective; if that cannot be, keep them "
                "(--keep defective)"
            )

    def attributes(self) -> dict[str, Any]:
        """Return the counts, and what was kept, as a scene has them."""
        kept = [kind for kind in KINDS if kind in self.choices.keep]
        return {"masks": self.flagged} | ({"masks_kept": kept} if kept else {})


def bands_flagged(flags: np.ndarray) -> np.ndarray:
    """Return in how many bands each pixel is flagged `(h, W)`, of flags `(L, h, W)`."""
    return flags.sum(axis=0, dtype=np.uint16)  # several times faster than sums of 64 bits


def strips(shape: tuple[int, int], bands: int, block: int = 1) -> Iterator[slice]:
    """Yield rows that cover a scene, whole blocks of the file, so many that their values fit into memory with ease."""
    step = max(1, _STRIP_VALUES // max(1, bands * shape[1]) // block) * block
    for first in range(0, shape[0], step):
        yield slice(first, min(first + step, shape[0]))
