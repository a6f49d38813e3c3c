"""Damaged metadata lead to our errors, and soon; `SPECTRALMAMBA_FUZZ_CASES=100000` asks for more than the few here."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_aviris import make_aviris_envi
from make_desis import make_desis
from make_enmap import make_enmap

from spectralmamba.errors import SpectralMambaError
from spectralmamba.scenes import open_scene

CASES = int(os.environ.get("SPECTRALMAMBA_FUZZ_CASES", "2000"))
"""In all: half of them by hypothesis, half with flipped bytes."""

SLOWEST = 1.0
"""Seconds of computing that a case may take; usual are some 5 milliseconds."""

WORDS = (
    *(
        b"NaN",
        b"inf",
        b"-1",
        b"0",
        b"99999999999999999999",
        b"1e400",
        b"",
        b"{",
        b"}",
        b"=",
        b";",
        b"\n",
        b"\0",
        b"\xff\xfe",
    ),
    *(
        b"&lt;",
        b"<!DOCTYPE x>",
        b"<a>",
        b"</level_X>",
        b"<bandID number='1'>",
        b"]]>",
        b"<![CDATA[",
        b"bands = 3",
        b"samples = 0",
    ),
    *(
        "µm".encode(),
        b"map info = {UTM, 1, 1, nan, 0, 0, 0, 99}",
        b"data type = 6",
        b"byte order = 2",
        b"\xf0\x9f\x98\x80",
    ),
)


def product(folder: Path, kind: str) -> tuple[Path, Path]:
    """Make a small product; return what is opened and the metadata in it."""
    if kind == "enmap":
        made = make_enmap(folder, shape=(2, 3))
        return made.image, made.file("METADATA")
    if kind == "desis":
        made = make_desis(folder, shape=(2, 3), bands=20)
        return made.image, made.file("METADATA")
    if kind == "desis header":
        made = make_desis(folder, shape=(2, 3), bands=20)
        return made.image, made.image.with_suffix(".hdr")
    data, *_ = make_aviris_envi(folder, shape=(2, 3), bands=20)
    return data, data.with_name(data.name + ".hdr")


KINDS = {"enmap": 0.25, "desis": 0.25, "desis header": 0.2, "envi": 0.3}
"""Of all cases, the share of each kind."""


def check(scene: Path, metadata: Path, content: bytes) -> None:
    metadata.write_bytes(content)
    gc.disable()  # of all that many cases leave behind, which grows with them
    start = time.process_time()
    with suppress(SpectralMambaError):  # any other error fails the test
        assert (np.diff(open_scene(scene)["wavelength"].values) >= 0).all()
    took = time.process_time() - start
    gc.enable()
    assert took < SLOWEST


@pytest.fixture
def cases(tmp_path) -> Callable[[str], tuple[Path, Path, bytes]]:
    """Makes a product: what is opened, the metadata in it, and what they hold."""

    def make(kind: str) -> tuple[Path, Path, bytes]:
        scene, metadata = product(tmp_path, kind)
        return scene, metadata, metadata.read_bytes()

    return make


def mutations(content: bytes) -> st.SearchStrategy[bytes]:
    """Contents with words put in, parts taken out or doubled, and numbers replaced."""
    place = st.integers(0, len(content))
    numbers = [found.span() for found in re.finditer(rb"[-\d.]+", content)]

    def apply(changes: list[tuple[str, int, int, bytes]]) -> bytes:
        changed = content
        for how, first, second, word in changes:
            first, second = sorted((first % (len(changed) + 1), second % (len(changed) + 1)))
            second = min(second, first + 200)
            if how == "number":
                start, stop = numbers[first % len(numbers)]
                changed = changed[:start] + word + changed[stop:]
            elif how == "insert":
                changed = changed[:first] + word + changed[first:]
            elif how == "remove":
                changed = changed[:first] + changed[second:]
            elif how == "double":
                changed = changed[:second] + changed[first:]
            else:
                changed = changed[:first]
        return changed

    word = st.sampled_from(WORDS) | st.binary(max_size=12)
    how = st.sampled_from(["number", "number", "insert", "remove", "double", "cut"])
    return st.lists(st.tuples(how, place, place, word), min_size=1, max_size=4).map(apply)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_metadata(cases, kind):
    scene, metadata, content = cases(kind)

    @settings(
        max_examples=max(1, int(CASES * KINDS[kind] / 2)),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations(content))
    def run(changed: bytes) -> None:
        check(scene, metadata, changed)

    run()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes(cases, kind):
    scene, metadata, content = cases(kind)
    rng = np.random.default_rng(17)
    for _ in range(max(1, int(CASES * KINDS[kind] / 2))):
        changed = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 6)).tolist():
            changed[place] = (changed[place] ^ (1 << rng.integers(8))) if rng.random() < 0.5 else rng.integers(256)
        check(scene, metadata, bytes(changed))
