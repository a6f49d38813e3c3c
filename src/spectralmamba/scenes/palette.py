"""Class colours that stay apart for colour-blind readers too."""

from __future__ import annotations

import colorsys
from collections.abc import Collection, Iterable, Iterator

# The first seven are Okabe and Ito's (Color Universal Design, 2008) without black. Each further one is the colour of
# the sRGB grid of step 15, OKLab lightness 0.28 to 0.95, that lies farthest from all before it and from black and
# white: the smallest OKLab distance counts, with normal vision and with full protanopia and deuteranopia (Machado,
# Oliveira and Fernandes, 2009, severity 1). Any two of the first 24 are 0.075 apart,
# of all 32 0.06; the test measures it.
PALETTE = (
    *("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#2d2d1e"),
    *("#000096", "#0000ff", "#784b4b", "#c3d2b4", "#5a87ff", "#4b0f5a", "#2d4b87", "#b4d2ff"),
    *("#2d1ec3", "#a5b487", "#b4ffb4", "#b40f00", "#692d4b", "#786978", "#0f69f0", "#e1c369"),
    *("#d21ec3", "#69c3c3", "#e1e1e1", "#a55a4b", "#e16978", "#4b5a78", "#4b5a00", "#d2873c"),
)
# Of quantities from low to high: anchors of cividis (Nuñez, Anderton & Renslow, 2018), dark to bright.
CIVIDIS = ("#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838")
# Of prediction sets that hold no class, one, two, and three or more. Sure is bright, as in the ramp; each is 18 or more in
# lightness (CIE L*) from the others, so that they differ in grey, too.
SET_COLORS = ("#b3365f", "#fee838", "#9b9476", "#1a386f")
SET_MEANINGS = ("none", "one", "two", "three or more")
_GOLDEN_RATIO = 0.6180339887498949


def default_colors(ids: Iterable[int], *, taken: Collection[str] = ()) -> dict[int, str]:
    """Give every class id its own colour, by rank: the lowest id gets the first colour of the palette.

    Args:
        ids: Class ids in any order, contiguous or not; repeated ones count once.
        taken: Colours ("#rrggbb") that are in use already and are passed over.

    Returns:
        `{id: "#rrggbb"}`, ids ascending; never white or black; the same for the same arguments.
    """
    in_use = {color.lower() for color in taken}
    free = (color for color in _all_colors() if color not in in_use)
    return {id_: next(free) for id_ in sorted(set(ids))}


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour written "#rrggbb".

    Raises:
        ValueError: The text is not of that form.
    """
    if len(color) != 7 or color[0] != "#":
        raise ValueError(f'{color!r} is not a colour of the form "#rrggbb"')
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def hex_color(red: int, green: int, blue: int) -> str:
    """The colour of these components, 0 to 255, written "#rrggbb"."""
    return f"#{int(red):02x}{int(green):02x}{int(blue):02x}"


def _all_colors() -> Iterator[str]:
    """The palette, then hues a golden section apart at changing lightness; no colour twice."""
    yield from PALETTE
    seen, step = set(PALETTE), 0
    while True:
        step += 1
        hue, lightness, saturation = step * _GOLDEN_RATIO % 1, 0.3 + 0.5 * (step * _GOLDEN_RATIO**2 * 7 % 1), 0.75
        color = hex_color(*(round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, saturation)))
        if color not in seen:
            seen.add(color)
            yield color
