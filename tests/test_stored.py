"""What a device makes of stored values: what the CPU makes of them, to the last bit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from spectralmamba import open_scene
from spectralmamba.errors import SceneError
from spectralmamba.stored import StoredScene

BANDS, ROWS, COLUMNS = 7, 13, 11
CODES = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5}
ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write_scene(folder, interleave="bil", dtype="int16", more="", byte_order=0):
    rng = np.random.default_rng(0)
    cube = rng.integers(0, 200, (BANDS, ROWS, COLUMNS)).astype(dtype)
    cube[2, 3, 4], cube[:, 8, 9] = 7, 7
    if cube.dtype.kind == "f":
        cube += rng.random(cube.shape).astype(dtype)
        cube[1, 2, 3], cube[1, 2, 4], cube[0, 0, 0] = np.nan, np.inf, 7
    stored = cube.transpose(ORDERS[interleave]).astype(cube.dtype.newbyteorder("<>"[byte_order]))
    (folder / "scene.raw").write_bytes(stored.tobytes())
    (folder / "scene.hdr").write_text(
        f"ENVI\nsamples = {COLUMNS}\nlines = {ROWS}\nbands = {BANDS}\nheader offset = 0\ndata type = {CODES[dtype]}\n"
        f"interleave = {interleave}\nbyte order = {byte_order}\n{more}"
    )
    return open_scene(folder / "scene.hdr")


def converted(scene, rows, columns, parts=3):
    stored = StoredScene.of(scene)
    assert stored is not None
    with ThreadPoolExecutor(2) as threads:
        return stored.physical(
            stored.read(rows, columns, lambda count: torch.full((count,), 99, dtype=torch.uint8), threads, parts)
        ).numpy()


@pytest.mark.parametrize("interleave", ORDERS)
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize(
    "more",
    [
        "",
        "data ignore value = 7\n",
        "reflectance scale factor = 10000\ndata ignore value = 7.5\n",
        f"data gain values = {{{', '.join(['1e-3'] * BANDS)}}}\ndata offset values = {{{', '.join(map(str, range(BANDS)))}}}\n",
        f"data gain values = {{{', '.join(['1e30'] * BANDS)}}}\n",
    ],
)
def test_any_device_makes_the_same_of_stored_values_as_a_cpu(tmp_path, interleave, dtype, more):
    scene = write_scene(tmp_path, interleave, dtype, more)
    for bands in (slice(None), slice(2, 6), [1, 2, 5], [4]):
        for rows, columns in (
            (slice(0, ROWS), slice(0, COLUMNS)),
            (slice(3, 9), slice(1, 11)),
            (slice(2, 3), slice(4, 6)),
        ):
            some = scene.isel(band=bands)
            expected = some.isel(y=rows, x=columns).values
            np.testing.assert_array_equal(converted(some, rows, columns), expected)
            within = some.isel(y=slice(1, None), x=slice(1, 10))
            if rows.stop < ROWS and columns.stop < 10:
                np.testing.assert_array_equal(converted(within, rows, columns), within.isel(y=rows, x=columns).values)


def test_only_what_is_stored_as_it_is_goes_to_a_device(tmp_path):
    scene = write_scene(tmp_path)
    for other in (scene.load().copy(), scene.isel(y=slice(None, None, 2)), scene.isel(y=[3, 1]), scene + 1):
        assert StoredScene.of(other) is None
    assert StoredScene.of(write_scene(tmp_path, byte_order=1)) is None


def test_a_file_that_shrinks_says_so(tmp_path):
    scene = write_scene(tmp_path)
    (tmp_path / "scene.raw").write_bytes(b"short")
    with pytest.raises(SceneError, match=r"scene\.raw"):
        converted(scene, slice(0, ROWS), slice(0, COLUMNS))
