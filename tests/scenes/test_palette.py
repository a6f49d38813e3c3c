from __future__ import annotations

import numpy as np
import pytest

from spectralmamba.scenes.palette import PALETTE, default_colors, hex_color, rgb

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
# Björn Ottosson's OKLab (2020), from linear sRGB.
TO_CONES = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
TO_CONES += [[0.0883024619, 0.2817188376, 0.6299787005]]
TO_LAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
TO_LAB += [[0.0259040371, 0.7827717662, -0.8086757660]]


def smallest_distance(colors: list[str], vision: np.ndarray) -> float:
    srgb = np.array([rgb(color) for color in colors]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ vision.T, 0, 1)
    lab = np.cbrt(seen @ np.array(TO_CONES).T) @ np.array(TO_LAB).T
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return distance[~np.eye(len(colors), dtype=bool)].min()


# Okabe and Ito's own colours come as near as 0.076; 0.02 is a just noticeable difference in OKLab.
@pytest.mark.parametrize(("count", "apart"), [(7, 0.075), (24, 0.075), (32, 0.06)])
@pytest.mark.parametrize(
    "vision", [np.eye(3), np.array(PROTANOPIA), np.array(DEUTERANOPIA)], ids=["normal", "protan", "deutan"]
)
def test_classes_can_be_told_apart_by_everyone(count: int, apart: float, vision: np.ndarray):
    colors = list(default_colors(range(1, count + 1)).values())
    assert smallest_distance(colors, vision) > apart


def test_hundreds_of_classes_get_different_colours_and_never_black_or_white():
    colors = list(default_colors(range(1, 401)).values())
    assert len(set(colors)) == 400
    assert not {"#000000", "#ffffff"} & set(colors)


def test_the_same_ids_get_the_same_colours_in_any_order():
    assert (
        default_colors([14, 1, 10, 1]) == default_colors([1, 10, 14]) == dict(zip([1, 10, 14], PALETTE, strict=False))
    )


def test_colours_in_use_are_passed_over():
    assert default_colors([3], taken=[PALETTE[0].upper()]) == {3: PALETTE[1]}


def test_a_colour_survives_the_way_to_numbers_and_back():
    assert all(hex_color(*rgb(color)) == color for color in PALETTE)


def test_what_is_not_a_colour_is_refused():
    with pytest.raises(ValueError, match="not a colour"):
        rgb("red")
