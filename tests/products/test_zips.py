from __future__ import annotations

import gc
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from all_products import pack
from cut_files import check_refused_or_whole
from make_aviris import make_aviris_envi, make_aviris_netcdf
from make_desis import make_desis
from make_emit import make_emit, make_mask
from make_enmap import make_enmap
from make_prisma import make_prisma

from spectralmamba.errors import SceneError
from spectralmamba.scenes import open_scene
from spectralmamba.scenes.products import zips

MAKERS = {
    "enmap": make_enmap,
    "enmap-envi": lambda folder: make_enmap(folder, image_format="BIL"),
    "prisma": make_prisma,
    "emit": lambda folder: (make_emit(folder), make_mask(folder, {"Cloud flag": (2, 2)})),
    "desis": make_desis,
    "aviris-ng": make_aviris_envi,
    "aviris-3": make_aviris_netcdf,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPECTRALMAMBA_CACHE", str(folder))
    return folder


def unpacked(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("inside", ["", "product/"])
@pytest.mark.parametrize("product", MAKERS)
def test_a_zip_is_the_folder(tmp_path, product, compression, inside):
    MAKERS[product](tmp_path / "folder")
    archive = pack(tmp_path / "download.zip", tmp_path / "folder", compression, inside)
    scene, plain = open_scene(archive), open_scene(tmp_path / "folder")
    np.testing.assert_array_equal(scene.values, plain.values)
    np.testing.assert_array_equal(scene[3:9, 2:5, 1].values, plain.values[3:9, 2:5, 1])
    assert scene.rio.transform() == plain.rio.transform()
    assert scene.attrs["source"] == str(archive)
    assert scene.attrs["masks"] == plain.attrs["masks"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scene)).values, plain.values)


def test_stored_images_are_read_in_place_and_of_others_only_what_is_needed_is_unpacked(tmp_path, cache):
    made = make_enmap(tmp_path / "folder")
    scene = open_scene(pack(tmp_path / "a.zip", made.folder, zipfile.ZIP_STORED))
    assert unpacked(cache) == [f"{made.stem}-METADATA.XML"]
    del scene
    gc.collect()
    scene = open_scene(pack(tmp_path / "b.zip", made.folder, zipfile.ZIP_DEFLATED), keep=["snow"])
    names = unpacked(cache)
    assert f"{made.stem}-SPECTRAL_IMAGE.TIF" in names
    assert not [name for name in names if "QL_VNIR" in name or "SNOW" in name or "TESTFLAGS" in name]
    del scene
    gc.collect()
    assert unpacked(cache) == []
    assert list(cache.iterdir()) == []


def test_the_unpacked_files_live_as_long_as_a_scene(tmp_path, cache):
    make_prisma(tmp_path / "folder")
    scene = open_scene(pack(tmp_path / "a.zip", tmp_path / "folder", zipfile.ZIP_DEFLATED))
    part = scene[3:9, :, 2:]
    del scene
    gc.collect()
    assert unpacked(cache)
    assert np.isfinite(part.values).any()
    del part
    gc.collect()
    assert not unpacked(cache)


def test_what_a_killed_process_has_unpacked_goes_with_the_next_one_that_unpacks(tmp_path, cache):
    make_prisma(tmp_path / "folder")
    archive = pack(tmp_path / "a.zip", tmp_path / "folder")
    program = (
        f"import os; from spectralmamba.scenes import open_scene; scene = open_scene({str(archive)!r}); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    (left,) = cache.iterdir()
    assert unpacked(cache)
    first = open_scene(archive)
    assert not left.exists()
    second = open_scene(archive)  # what is in use stays
    assert len(list(cache.iterdir())) == 2
    np.testing.assert_array_equal(first.values, second.values)


def write_zip(path: Path, members: dict[str, bytes], **info: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(entry, key, value)
            archive.writestr(entry, content)
    return path


@pytest.mark.parametrize("name", ["../evil.he5", "/etc/evil.he5", "a/../../evil.he5", "..\\evil.he5", "C:/evil.he5"])
def test_members_that_lead_out_of_the_zip_are_refused(tmp_path, cache, name):
    archive = write_zip(tmp_path / "a.zip", {name: b"x" * 100})
    with pytest.raises(SceneError, match="the zip is not safe; found a member that leads out of it"):
        open_scene(archive)
    assert not cache.exists()
    assert not list(tmp_path.parent.glob("evil*"))


def test_links_are_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"PRS_L2D_STD_1.he5": b"/etc/passwd"}, external_attr=0o120777 << 16)
    with pytest.raises(SceneError, match="found a link or device"):
        open_scene(archive)


@pytest.mark.parametrize("product", ["enmap", "desis", "aviris-ng"])
def test_links_out_of_a_folder_are_refused_and_those_within_or_named_are_followed(tmp_path, product):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    MAKERS[product](folder)
    whole = open_scene(folder).values
    main = max((path for path in folder.iterdir()), key=lambda path: path.stat().st_size)
    main.rename(elsewhere / main.name)
    main.symlink_to(elsewhere / main.name)
    with pytest.raises(SceneError, match="a link that leads out of its folder") as caught:
        open_scene(folder)
    assert main.name in str(caught.value)
    np.testing.assert_array_equal(open_scene(main).values, whole)
    main.unlink()
    (folder / "inside").write_bytes((elsewhere / main.name).read_bytes())
    main.symlink_to("inside")
    np.testing.assert_array_equal(open_scene(folder).values, whole)
    main.unlink()
    main.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SceneError, match="a file of the product is missing"):
        open_scene(folder)


def test_a_zip_in_a_zip_is_said(tmp_path):
    inner = write_zip(tmp_path / "inner.zip", {"a": b"b"})
    with pytest.raises(SceneError, match=r"the zip holds another archive; found inner\.zip"):
        open_scene(write_zip(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()}))


def test_a_zip_without_product_is_said(tmp_path):
    with pytest.raises(SceneError, match=r"the zip holds no product; found readme\.txt"):
        open_scene(write_zip(tmp_path / "a.zip", {"readme.txt": b"b"}))
    with pytest.raises(SceneError, match="the zip holds no product; found nothing"):
        open_scene(write_zip(tmp_path / "b.zip", {}))


def test_a_password_is_said(tmp_path):
    make_prisma(tmp_path / "folder")
    archive = pack(tmp_path / "a.zip", tmp_path / "folder", zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    directory = content.index(b"PK\1\2")
    struct.pack_into("<H", content, directory + 8, 1)
    archive.write_bytes(content)
    with pytest.raises(SceneError, match="the zip needs a password"):
        open_scene(archive)


def test_bombs_are_refused_before_anything_is_unpacked(tmp_path, cache, monkeypatch):
    bomb = write_zip(tmp_path / "a.zip", {"PRS_L2D_STD_1.he5": bytes(50_000_000)})
    with pytest.raises(SceneError, match="the zip is not safe; found 50000000 bytes in a zip of"):
        open_scene(bomb)
    monkeypatch.setattr(zips, "MOST_MEMBERS", 3)
    with pytest.raises(SceneError, match="found 4 members; expected at most 3"):
        open_scene(write_zip(tmp_path / "b.zip", dict.fromkeys("abcd", b"x")))
    assert not cache.exists()


def test_a_member_that_is_larger_than_it_says_is_refused(tmp_path, cache):
    archive = write_zip(tmp_path / "a.zip", {"PRS_L2D_STD_1.he5": os.urandom(5000)})
    content = bytearray(archive.read_bytes())
    directory = content.index(b"PK\1\2")
    struct.pack_into("<I", content, directory + 24, 100)
    archive.write_bytes(content)
    with pytest.raises(SceneError, match="the zip is damaged"):
        open_scene(archive)
    gc.collect()
    assert not unpacked(cache)


def test_a_name_twice_and_two_products_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("PRS_L2D_STD_1.he5", b"a")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("PRS_L2D_STD_1.he5", b"b")
    with pytest.raises(SceneError, match="twice"):
        open_scene(tmp_path / "a.zip")
    archive = write_zip(tmp_path / "b.zip", {"x/PRS_L2D_STD_1.he5": b"a", "y/PRS_L2D_STD_2.he5": b"b"})
    with pytest.raises(SceneError, match="holds several products"):
        open_scene(archive)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_cut_at_every_64th_is_refused(tmp_path, compression):
    make_enmap(tmp_path / "folder", shape=(4, 4))
    archive = pack(tmp_path / "a.zip", tmp_path / "folder", compression)
    whole, content = open_scene(archive).load(), archive.read_bytes()
    for part in range(64):
        archive.write_bytes(content[: len(content) * part // 64])
        check_refused_or_whole(archive, archive, whole)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_flipped_bytes_is_refused_or_read(tmp_path, compression):
    make_enmap(tmp_path / "folder", shape=(4, 4))
    archive = pack(tmp_path / "a.zip", tmp_path / "folder", compression)
    content, rng = archive.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(len(content) if rng.random() < 0.3 else 60, size=3):
            changed[-int(place) - 1] = rng.integers(256)
        archive.write_bytes(changed)
        try:
            open_scene(archive)
        except SceneError:
            pass
