"""The fixture that writes maps, for all tests of this folder."""

from map_example import make_map

__all__ = ["make_map"]
