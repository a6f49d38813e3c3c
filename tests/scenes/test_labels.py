from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import scipy.io
import scipy.sparse
import xarray as xr
from rasterio.transform import Affine

from spectralmamba.errors import LabelError, MissingPackageError
from spectralmamba.scenes.labels import open_labels
from spectralmamba.scenes.opening import open_scene
from spectralmamba.scenes.scene import valid_mask

ROWS, COLUMNS = 7, 5
TRANSFORM = Affine(10, 0, 390_000, 0, -10, 5_820_000)
UTM = "EPSG:32633"
IDS = np.zeros((ROWS, COLUMNS), np.uint8)
IDS[2:4, 1:4], IDS[5, 2], IDS[6, 4] = 3, 10, 14


def make_scene(bands: int = 3, transform: Affine | None = TRANSFORM, crs: str | None = UTM) -> xr.DataArray:
    """A scene whose pixel (2, 1) is nodata in a good band; its last band is bad and nodata everywhere."""
    values = np.ones((bands, ROWS, COLUMNS), np.float32)
    values[0, 2, 1] = np.nan
    values[-1] = np.nan
    coordinates = {"band": np.arange(1, bands + 1), "good": ("band", np.arange(bands) < bands - 1)}
    scene = xr.DataArray(values, dims=("band", "y", "x"), coords=coordinates, attrs={"source": "scene"})
    if transform is not None:
        scene = scene.rio.write_transform(transform)
    return scene if crs is None else scene.rio.write_crs(crs)


def write_tif(
    path: Path, ids: np.ndarray = IDS, transform: Affine | None = TRANSFORM, crs: Any = UTM, **more: Any
) -> Path:
    bands = ids if ids.ndim == 3 else ids[None]
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    located = {} if transform is None else {"transform": transform}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, **shape, **located, **more) as target:
        target.write(bands)
    return path


def write_envi(path: Path, ids: np.ndarray = IDS, **more: str) -> Path:
    entries = {
        **{"samples": ids.shape[1], "lines": ids.shape[0], "bands": 1, "data type": 1, "interleave": "bsq"},
        **{
            "byte order": 0,
            "file type": "ENVI Classification",
            **{key.replace("_", " "): v for key, v in more.items()},
        },
    }
    path.with_suffix(".hdr").write_text("ENVI\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()))
    path.write_bytes(ids.tobytes())
    return path


def test_ids_that_are_not_contiguous_get_names_and_colours(tmp_path: Path):
    labels = open_labels(write_tif(tmp_path / "l.tif"), make_scene())
    assert labels.dtype == np.int32
    assert labels.attrs["class_names"] == {3: "class 3", 10: "class 10", 14: "class 14"}
    assert len(set(labels.attrs["class_colors"].values())) == 3
    assert labels.attrs["source"] == str(tmp_path / "l.tif")
    assert labels.rio.crs.to_epsg() == 32633
    assert labels.rio.transform() == TRANSFORM


def test_labels_on_nodata_are_left_out_and_counted(tmp_path: Path):
    labels = open_labels(write_tif(tmp_path / "l.tif"), make_scene())
    assert labels[2, 1] == 0
    assert labels.attrs["report"] == {"outside_scene": 0, "on_nodata": 1, "conflicting_pixels": 0}
    assert (labels == 3).sum() == (IDS == 3).sum() - 1


def test_labels_can_be_opened_without_a_scene(tmp_path: Path):
    labels = open_labels(write_tif(tmp_path / "l.tif"))
    np.testing.assert_array_equal(labels, IDS)
    assert labels["x"].values[0] == 390_005


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_every_format_gives_the_same_ids(tmp_path: Path):
    scene = make_scene()
    expected = open_labels(write_tif(tmp_path / "l.tif"), scene).values
    np.save(tmp_path / "l.npy", IDS[None])
    scipy.io.savemat(tmp_path / "l.mat", {"gt": IDS.astype(np.float64), "count": 3})
    scipy.io.savemat(tmp_path / "s.mat", {"gt": scipy.sparse.csc_matrix(IDS.astype(float))})
    with rasterio.open(
        tmp_path / "l.png", "w", driver="PNG", height=ROWS, width=COLUMNS, count=1, dtype="uint8"
    ) as png:
        png.write(IDS, 1)
    write_envi(tmp_path / "e.img")
    for name in ("l.npy", "l.mat", "s.mat", "l.png", "e.img", "e.hdr"):
        labels = open_labels(tmp_path / name, scene)
        np.testing.assert_array_equal(labels, expected, err_msg=name)
        assert "matched by row and column" in labels.attrs["notes"][0]


def test_matlab_73_files_are_not_transposed(tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "l.mat", "w", userblock_size=512) as file:
        file["gt"] = IDS.T.astype(np.float64)
    np.testing.assert_array_equal(open_labels(tmp_path / "l.mat"), IDS)


def test_matlab_73_without_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "l.mat").write_bytes(b"\0" * 512 + b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r'pip install "spectralmamba\[hdf5\]"'):
        open_labels(tmp_path / "l.mat")


def test_of_several_variables_one_must_be_named(tmp_path: Path):
    scipy.io.savemat(tmp_path / "l.mat", {"train": IDS, "test": IDS + 1})
    with pytest.raises(LabelError, match=r"train 7×5, test 7×5.*--label-variable"):
        open_labels(tmp_path / "l.mat")
    np.testing.assert_array_equal(open_labels(tmp_path / "l.mat", variable="test"), IDS + 1)
    with pytest.raises(LabelError, match="no numeric variable 'gt'"):
        open_labels(tmp_path / "l.mat", variable="gt")


def test_names_and_colours_come_from_our_tags(tmp_path: Path):
    path = write_tif(tmp_path / "l.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASS_NAMES=json.dumps({"3": "lettuce", "10": "Rübe"}), CLASS_COLORS='{"3": "#AA0000"}')
    labels = open_labels(path)
    assert labels.attrs["class_names"] == {3: "lettuce", 10: "Rübe", 14: "class 14"}
    assert labels.attrs["class_colors"][3] == "#aa0000"
    assert set(labels.attrs["class_colors"]) == {3, 10, 14}


@pytest.mark.parametrize("tags", [{"CLASS_NAMES": "{oops"}, {"CLASS_COLORS": '{"3": "red"}'}])
def test_damaged_tags_are_refused(tmp_path: Path, tags: dict[str, str]):
    path = write_tif(tmp_path / "l.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**tags)
    with pytest.raises(LabelError, match="damaged"):
        open_labels(path)


def test_colours_come_from_the_colour_table(tmp_path: Path):
    path = write_tif(tmp_path / "l.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {3: (255, 0, 1, 255)})
    colors = open_labels(path).attrs["class_colors"]
    assert colors[3] == "#ff0001"
    assert "#000000" not in colors.values()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_palette_png_gives_its_indices_and_colours(tmp_path: Path):
    path = tmp_path / "l.png"
    with rasterio.open(path, "w", driver="PNG", height=ROWS, width=COLUMNS, count=1, dtype="uint8") as png:
        png.write_colormap(1, {0: (0, 0, 0, 255), 3: (1, 2, 3, 255), 10: (4, 5, 6, 255), 14: (7, 8, 9, 255)})
        png.write(IDS, 1)
    labels = open_labels(path)
    np.testing.assert_array_equal(labels, IDS)
    assert labels.attrs["class_colors"] == {3: "#010203", 10: "#040506", 14: "#070809"}


def test_names_come_from_gdal_category_names(tmp_path: Path):
    path = write_tif(tmp_path / "l.tif")
    categories = "".join(f"<Category>{name}</Category>" for name in ("Water", "", "", "corn"))
    (tmp_path / "l.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand></PAMDataset>'
    )
    labels = open_labels(path)
    assert labels.attrs["class_names"][3] == "corn"
    assert 'names class 0 "Water"' in labels.attrs["notes"][0]


def test_names_come_from_a_raster_attribute_table(tmp_path: Path):
    path = write_tif(tmp_path / "l.tif")
    fields = [("Count", 1), ("Value", 5), ("Type", 2), ("R", 6), ("G", 7), ("B", 8)]
    definitions = "".join(f"<FieldDefn><Name>{n}</Name><Usage>{u}</Usage></FieldDefn>" for n, u in fields)
    row = "".join(f"<F>{value}</F>" for value in (12, 10, "beet", 1, 2, 3))
    (tmp_path / "l.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>{definitions}<Row index="0">{row}</Row>'
        "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    )
    labels = open_labels(path)
    assert labels.attrs["class_names"][10] == "beet"
    assert labels.attrs["class_colors"][10] == "#010203"


def test_names_and_colours_come_from_an_envi_header(tmp_path: Path):
    names, lookup = "{Unclassified, a, b, corn}", "{0,0,0, 1,1,1, 2,2,2, 255,128,0}"
    labels = open_labels(write_envi(tmp_path / "l.img", classes="4", class_names=names, class_lookup=lookup))
    assert labels.attrs["class_names"][3] == "corn"
    assert labels.attrs["class_colors"][3] == "#ff8000"
    assert labels.attrs["notes"] == []


def test_a_cut_off_envi_file_is_refused_with_both_sizes(tmp_path: Path):
    path = write_envi(tmp_path / "l.img")
    path.write_bytes(IDS.tobytes()[:-3])
    with pytest.raises(LabelError, match=r"32 bytes.*35 bytes"):
        open_labels(path)


def test_nodata_and_nan_mean_unlabelled(tmp_path: Path):
    ids = IDS.astype(np.float32)
    ids[0, 0], ids[0, 1] = -9999, np.nan
    labels = open_labels(write_tif(tmp_path / "l.tif", ids, nodata=-9999))
    np.testing.assert_array_equal(labels, IDS)


@pytest.mark.parametrize(
    ("value", "message"), [(2.5, "whole numbers"), (-1, "negative"), (65536, "larger than 65535"), (np.inf, "larger")]
)
def test_values_that_are_no_class_ids_are_refused(tmp_path: Path, value: float, message: str):
    ids = IDS.astype(np.float64)
    ids[0, 0] = value
    np.save(tmp_path / "l.npy", ids)
    with pytest.raises(LabelError, match=f"{message}.*found {value}"):
        open_labels(tmp_path / "l.npy")


def test_a_raster_without_any_label_is_refused(tmp_path: Path):
    with pytest.raises(LabelError, match="no labelled pixel"):
        open_labels(write_tif(tmp_path / "l.tif", IDS * 0))


def test_several_bands_are_refused(tmp_path: Path):
    with pytest.raises(LabelError, match="found 3 bands"):
        open_labels(write_tif(tmp_path / "l.tif", np.stack([IDS] * 3), photometric="RGB"))
    np.save(tmp_path / "l.npy", np.stack([IDS] * 3))
    with pytest.raises(LabelError, match=r"\(3, 7, 5\)"):
        open_labels(tmp_path / "l.npy")


def test_pickles_and_damaged_files_are_refused(tmp_path: Path):
    np.save(tmp_path / "l.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("l.mat", "l.tif", "l.png", "l.txt"):
        (tmp_path / name).write_bytes(b"nothing that anybody can read" * 40)
    for name in ("l.npy", "l.mat", "l.tif", "l.png", "l.txt", "missing.tif"):
        with pytest.raises(LabelError, match=name):
            open_labels(tmp_path / name)


def test_a_raster_shifted_by_whole_pixels_is_moved(tmp_path: Path):
    shifted = Affine(10, 0, 390_000 - 20, 0, -10, 5_820_000 + 10)
    labels = open_labels(write_tif(tmp_path / "l.tif", transform=shifted), make_scene())
    assert labels[4, 0] == 10
    assert labels[5, 2] == 14
    np.testing.assert_array_equal(labels[1:3, :2], [[3, 3], [3, 0]])  # (2, 1) is nodata
    assert labels.attrs["report"]["outside_scene"] == 2


def test_moving_agrees_with_looking_up_coordinates(tmp_path: Path):
    scene = make_scene()
    ids = np.random.default_rng(0).integers(0, 4, (6, 9)).astype(np.uint8)
    for left in (-12, -8, -3, 0, 2, 4, 9):
        for top in (-9, -4, 0, 3, 6, 8):
            expected = np.zeros((ROWS, COLUMNS), int)
            for (row, column), id_ in np.ndenumerate(ids):
                if 0 <= row + top < ROWS and 0 <= column + left < COLUMNS:
                    expected[row + top, column + left] = id_
            outside = (ids > 0).sum() - (expected > 0).sum()
            expected[~valid_mask(scene)] = 0
            path = write_tif(tmp_path / "l.tif", ids, Affine(10, 0, 390_000 + 10 * left, 0, -10, 5_820_000 - 10 * top))
            if expected.any():
                labels = open_labels(path, scene)
                np.testing.assert_array_equal(labels, expected)
                assert labels.attrs["report"]["outside_scene"] == outside
            else:
                with pytest.raises(LabelError, match=r"in the scene|is left"):
                    open_labels(path, scene)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (TRANSFORM, "EPSG:32632"),
        (Affine(20, 0, 390_000, 0, -20, 5_820_000), UTM),
        (Affine(10, 0, 390_003, 0, -10, 5_820_000), UTM),
        (Affine(10, 0, 390_000, 0, 10, 5_819_930), UTM),
        (Affine(9, 1, 390_000, 1, -9, 5_820_000), UTM),
    ],
    ids=["crs", "resolution", "fraction", "south-up", "rotation"],
)
def test_another_grid_is_refused_with_both_in_words(tmp_path: Path, transform: Affine, crs: str):
    path = write_tif(tmp_path / "l.tif", transform=transform, crs=crs)
    with pytest.raises(
        LabelError, match=rf"found labels on 7×5 pixels.*{crs}; expected the scene's 7×5 pixels of 10×10"
    ):
        open_labels(path, make_scene())


def test_the_same_rotated_grid_is_accepted(tmp_path: Path):
    rotated = Affine(9, 3, 390_000, 3, -9, 5_820_000)
    labels = open_labels(write_tif(tmp_path / "l.tif", transform=rotated), make_scene(transform=rotated))
    assert labels[5, 2] == 10
    assert labels.rio.transform() == rotated
    assert "x" not in labels.coords


def test_without_georeference_other_shapes_are_refused(tmp_path: Path):
    scene = make_scene(transform=None, crs=None)
    np.save(tmp_path / "l.npy", IDS[:-1])
    with pytest.raises(LabelError, match="found 6 rows × 5 columns; expected 7 rows × 5 columns"):
        open_labels(tmp_path / "l.npy", scene)


def test_transposed_labels_are_recognised(tmp_path: Path):
    np.save(tmp_path / "l.npy", IDS.T)
    with pytest.raises(LabelError, match="Rows and columns are exchanged"):
        open_labels(tmp_path / "l.npy", make_scene())


def test_a_cube_read_along_the_wrong_axis_is_recognised(tmp_path: Path):
    np.save(tmp_path / "l.npy", np.ones((11, ROWS), np.uint8))
    with pytest.raises(LabelError, match="--band-axis"):
        open_labels(tmp_path / "l.npy", make_scene(bands=11))


def test_settings_of_another_format_are_refused(tmp_path: Path):
    path = write_tif(tmp_path / "l.tif")
    with pytest.raises(LabelError, match="--label-variable gt"):
        open_labels(path, variable="gt")
    with pytest.raises(LabelError, match="--label-column name"):
        open_labels(path, column="name")


def test_the_ids_of_salinas_a_are_those_of_the_file(shared_data: Path):
    path = shared_data / "salinas_a" / "salinasA_gt.mat"
    labels = open_labels(path, open_scene(shared_data / "salinas_a" / "salinasA.mat"))
    np.testing.assert_array_equal(labels, scipy.io.loadmat(path)["salinasA_gt"])
    assert len(labels.attrs["class_names"]) == 6
    assert (labels > 0).sum() == 5348


def test_the_potsdam_raster_lies_on_its_scene(shared_data: Path):
    scene = open_scene(shared_data / "enmap_potsdam" / "enmap_potsdam_west.tif")
    labels = open_labels(shared_data / "enmap_potsdam" / "landcover_west.tif", scene)
    assert sorted(labels.attrs["class_names"]) == [1, 2, 3, 4, 5, 6]
    assert not labels.values[~valid_mask(scene)].any()
