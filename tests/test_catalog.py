"""Public data sets are had from mirrors or a folder, checked, and opened as the catalogue says."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from catalog_example import (
    BANDS,
    COLUMNS,
    ROWS,
    Site,
    cube,
    envi,
    geotiff,
    git_blob,
    ground_truth,
    matlab,
    on_site,
    pavia,
    serving,
    sha256,
    small,
)
from cli_example import command_line
from spectralmamba.catalog import (
    DataFile,
    Entry,
    UnverifiedDataWarning,
    archives,
    checksums,
    dataset,
    fetch,
    list_datasets,
    load_dataset,
    page,
    transfer,
)
from spectralmamba.catalog.transfer import Downloader
from spectralmamba.cli import show
from spectralmamba.errors import DataError, LabelError, MissingPackageError, OutputError, SceneError

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as served:
        yield served


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no folder of reference data."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SPECTRALMAMBA_CACHE", str(folder))
    monkeypatch.delenv("SPECTRALMAMBA_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """Pavia University in miniature, as a folder `published` too."""
    return pavia(tmp_path / "published")


@pytest.fixture
def one(site: Site) -> Any:
    """Fetch a data set of one file; the arguments describe the file."""

    def get(**how: Any) -> Path:
        return fetch(one_file(**how))[0]

    return get


def one_file(**how: Any) -> Entry:
    entry = dataset("samson")
    return replace(entry, files=(DataFile("Samson.mat", **how),))


BODY = bytes(range(256)) * 4096  # 1 MB: several chunks
FIRST, SECOND = 18 << 14, 24 << 14  # whole chunks


# What the catalogue says


def test_all_data_sets_that_were_asked_for_are_listed() -> None:
    assert list_datasets() == [
        *("augsburg", "botswana", "enmap-potsdam", "houston2013", "houston2018", "indian-pines", "ksc"),
        *("pavia-centre", "pavia-university", "salinas", "salinas-a", "samson"),
        *("whu-hi-hanchuan", "whu-hi-honghu", "whu-hi-longkou"),
    ]
    assert list_datasets("pavia*") == ["pavia-centre", "pavia-university"]


@pytest.mark.parametrize("name", list_datasets())
def test_an_entry_is_complete_and_consistent(name: str) -> None:
    entry = dataset(name)
    assert entry.name == name == name.lower()
    assert all((entry.title, entry.page, entry.terms, entry.citation, entry.sensor, entry.sources, entry.layouts))
    assert [class_.id for class_ in entry.classes] == sorted({class_.id for class_ in entry.classes})
    colors = entry.class_colors
    assert list(colors) == list(entry.class_names)
    assert len(set(colors.values())) == len(colors)
    assert entry.wavelengths is None or len(entry.wavelengths) == entry.bands
    assert entry.split is None or any(layout.masks for layout in entry.layouts)
    names = [file.name for file in entry.files]
    assert len(names) == len(set(names))
    for file in entry.files:
        assert file.archive is None or file.archive in names
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.git_blob is None or re.fullmatch("[0-9a-f]{40}", file.git_blob)
        assert all(url.startswith("http") for url in file.urls)


def test_an_address_on_the_gics_server_agrees_with_its_file_name() -> None:
    # MediaWiki files uploads under the first digits of the MD5 sum of their names.
    import hashlib

    urls = [url for name in list_datasets() for file in dataset(name).files for url in file.urls if "ehu.eus" in url]
    assert len(urls) == 15
    for url in urls:
        first, both, name = url.split("/")[-3:]
        digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        assert (first, both) == (digest[0], digest[:2]), url


def test_what_needs_a_form_has_no_address_for_its_scene() -> None:
    for name in list_datasets():
        entry = dataset(name)
        if entry.form:
            assert not any(entry.downloadable(layout.scene) for layout in entry.layouts)


def test_a_name_that_is_almost_right_is_guessed() -> None:
    with pytest.raises(DataError, match="Did you mean 'pavia-university'") as caught:
        dataset("Pavia_Universty")
    assert "salinas-a" in str(caught.value)
    with pytest.raises(DataError, match=r"unknown data set; found zzzzz; expected .*\.$"):
        load_dataset("zzzzz")


def test_the_table_in_the_docs_is_up_to_date() -> None:
    file = DOCS / "data.md"
    text = file.read_text(encoding="utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    assert page.with_table(text) == text, f"run python -m spectralmamba.catalog.page {file}"


# Downloads


def test_a_data_set_is_downloaded_checked_and_opened(site: Site, files: dict[str, bytes], cache: Path) -> None:
    entry = on_site("pavia-university", site, files)
    seen: list[tuple[str, int, int | None]] = []
    got = fetch(entry, progress=lambda *state: seen.append(state))
    assert [path.name for path in got] == list(files)
    assert {path.parent for path in got} == {cache / "pavia-university"}
    assert ("PaviaU.mat", len(files["PaviaU.mat"]), len(files["PaviaU.mat"])) in seen
    opened = load_dataset(entry)
    assert np.array_equal(opened.scene.values, cube().transpose(2, 0, 1))
    assert opened.labels.attrs["class_names"] == {1: "Asphalt", 2: "Meadows", 3: "Gravel", 9: "Shadows"}
    assert opened.labels.attrs["class_colors"][9] == entry.class_colors[9]
    assert opened.entry is entry
    assert sorted(path.name for path in (cache / "pavia-university").iterdir()) == sorted(
        [*files, *(f"{name}.sha256" for name in files)]
    )


def test_a_pixel_that_only_the_training_mask_labels_is_labelled_and_trains(site: Site, files: dict[str, bytes]) -> None:
    opened = load_dataset(on_site("pavia-university", site, files), download=True)
    assert opened.split is not None
    assert opened.labels.values[0, COLUMNS - 1] == 1
    assert opened.split.train.sum() == 2 * ROWS + 1
    assert opened.split.test.sum() == (COLUMNS - 3) * ROWS
    assert opened.split.record["method"] == "masks"
    assert opened.split.record["notes"] == []


def test_what_is_there_is_not_downloaded_again(site: Site, files: dict[str, bytes]) -> None:
    entry = on_site("pavia-university", site, files)
    fetch(entry)
    asked = len(site.asked)
    fetch(entry)
    load_dataset(entry, download=True)
    assert len(site.asked) == asked


def test_mirrors_are_tried_in_turn(site: Site, one: Any) -> None:
    missing, broken, good = site.url("missing"), site.add("broken", status=500), site.add("good", BODY)
    assert one(urls=(missing, broken, good), sha256=sha256(BODY)).read_bytes() == BODY
    assert [name for name, _ in site.asked] == ["missing", "broken", "good"]


def test_the_error_says_what_each_mirror_said(site: Site, one: Any, cache: Path) -> None:
    closed = "http://127.0.0.1:9/nothing-listens-here"
    with pytest.raises(DataError) as caught:
        one(urls=(site.url("missing"), site.add("broken", status=500), closed))
    message = str(caught.value)
    assert "missing: HTTP 404 Not Found" in message
    assert "broken: HTTP 500" in message
    assert f"{closed}: no connection" in message
    assert "--from-folder" in message
    assert list((cache / "samson").iterdir()) == []


def test_a_cut_transfer_is_continued_where_it_stopped(site: Site, one: Any) -> None:
    url = site.add("file", BODY, cut=[FIRST, SECOND])
    assert one(urls=(url,), sha256=sha256(BODY)).read_bytes() == BODY
    assert [part for _, part in site.asked] == [None, f"bytes={FIRST}-", f"bytes={FIRST + SECOND}-"]


def test_a_download_that_was_given_up_is_continued_by_the_next(site: Site, one: Any, cache: Path) -> None:
    url = site.add("file", BODY, cut=[FIRST, 0, 0, 0])
    with pytest.raises(DataError, match=r"the transfer was cut again and again|no connection"):
        one(urls=(url,), sha256=sha256(BODY))
    assert (cache / "samson" / "Samson.mat.part").stat().st_size == FIRST
    assert not (cache / "samson" / "Samson.mat").exists()
    site.asked.clear()
    assert one(urls=(url,), sha256=sha256(BODY)).read_bytes() == BODY
    assert site.asked == [("file", f"bytes={FIRST}-")]


def test_a_verified_part_is_continued_from_another_mirror(site: Site, one: Any) -> None:
    first, second = site.add("first", BODY, cut=[FIRST, 0, 0, 0]), site.add("second", BODY, tag='"2"')
    assert one(urls=(first, second), sha256=sha256(BODY)).read_bytes() == BODY
    assert site.asked[-1] == ("second", f"bytes={FIRST}-")


@pytest.mark.filterwarnings("ignore::spectralmamba.catalog.UnverifiedDataWarning")
@pytest.mark.parametrize("tag", ['"2"', ""])
def test_an_unverified_part_is_not_joined_to_another_version(site: Site, one: Any, tag: str) -> None:
    url = site.add("file", BODY, cut=[FIRST, 0, 0, 0], tag=tag and '"1"')
    with pytest.raises(DataError):
        one(urls=(url,))
    newer = BODY[::-1]
    site.add("file", newer, tag=tag)
    assert one(urls=(url,)).read_bytes() == newer


def test_a_server_without_ranges_sends_all_again(site: Site, one: Any) -> None:
    url = site.add("file", BODY, cut=[FIRST], ranges=False)
    assert one(urls=(url,), sha256=sha256(BODY)).read_bytes() == BODY


def test_a_part_that_is_longer_than_the_file_is_begun_again(site: Site, one: Any, cache: Path) -> None:
    part = cache / "samson" / "Samson.mat.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(BODY) + 10))
    assert one(urls=(site.add("file", BODY),), sha256=sha256(BODY)).read_bytes() == BODY


def test_a_server_that_never_answers_is_given_up(site: Site, tmp_path: Path) -> None:
    import requests

    downloader = Downloader(tmp_path / "file.part", verified=True, timeout=0.05)
    with pytest.raises(requests.Timeout):
        downloader(site.add("file", silent=True), tmp_path / "file", None)


def test_a_web_page_is_not_taken_for_an_unverified_file(site: Site, one: Any) -> None:
    with pytest.raises(DataError, match="a web page instead of the file"):
        one(urls=(site.add("file", b"<html>moved</html>", kind="text/html; charset=utf-8"),))


def test_two_processes_do_not_fill_one_folder(site: Site, cache: Path) -> None:
    entry = one_file(urls=(site.add("file", BODY),), sha256=sha256(BODY))

    def again(name: str, done: int, total: int | None) -> None:
        with pytest.raises(OutputError, match="another process is getting this data set"):
            fetch(entry)

    left = cache / "samson" / ".arriving-abc"
    left.mkdir(parents=True)
    assert fetch(entry, progress=again)[0].read_bytes() == BODY
    assert not left.exists()


def test_a_wrong_file_is_kept_aside_and_both_sums_are_shown(site: Site, one: Any, cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        one(urls=(site.add("file", BODY),), sha256=sha256(b"other"))
    assert sha256(BODY) in str(caught.value)
    assert sha256(b"other") in str(caught.value)
    assert [path.name for path in (cache / "samson").iterdir()] == ["Samson.mat.rejected"]
    assert (cache / "samson" / "Samson.mat.rejected").read_bytes() == BODY


def test_after_a_wrong_file_the_next_mirror_is_tried(site: Site, one: Any) -> None:
    wrong, right = site.add("wrong", b"not found, but politely"), site.add("right", BODY)
    assert one(urls=(wrong, right), sha256=sha256(BODY)).read_bytes() == BODY


def test_a_git_object_id_is_a_checksum_too(site: Site, one: Any, recwarn: pytest.WarningsRecorder) -> None:
    url = site.add("file", BODY)
    assert one(urls=(url,), git_blob=git_blob(BODY)).read_bytes() == BODY
    assert not [warning for warning in recwarn if warning.category is UnverifiedDataWarning]
    (Path(os.environ["SPECTRALMAMBA_CACHE"]) / "samson" / "Samson.mat").unlink()
    with pytest.raises(DataError, match=git_blob(BODY)):
        one(urls=(url,), git_blob=git_blob(b"other"))


def test_without_a_checksum_the_first_one_is_recorded_with_a_warning(site: Site, one: Any) -> None:
    with pytest.warns(UnverifiedDataWarning, match=sha256(BODY)):
        path = one(urls=(site.add("file", BODY),))
    assert checksums.record_path(path).read_text() == f"{sha256(BODY)}  Samson.mat\n"


def test_a_file_that_changed_in_the_cache_is_noticed(site: Site, files: dict[str, bytes], cache: Path) -> None:
    entry = on_site("pavia-university", site, files)
    fetch(entry)
    with (cache / entry.name / "PaviaU_gt.mat").open("r+b") as file:
        file.write(b"x")
    for again in (load_dataset, fetch):
        with pytest.raises(DataError, match="changed since it was downloaded") as caught:
            again(entry)
        assert sha256(files["PaviaU_gt.mat"]) in str(caught.value)


def test_a_full_disk_is_told_before_the_download(
    site: Site, one: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=rf"1000 bytes free; expected {len(BODY)} bytes.*--cache"):
        one(urls=(site.add("file", BODY),))
    assert not (cache / "samson" / "Samson.mat").exists()


def test_a_disk_that_fills_up_leaves_nothing_under_the_final_name(
    site: Site, one: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str, done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    entry = one_file(urls=(site.add("file", BODY),), sha256=sha256(BODY))
    with pytest.raises(OutputError, match="no space left in the cache"):
        fetch(entry, progress=full)
    assert not (cache / "samson" / "Samson.mat").exists()
    assert fetch(entry)[0].read_bytes() == BODY  # once there is room


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot make the folder of the cache.*--cache"):
        fetch(dataset("samson"), cache=tmp_path / "file")


def test_without_pooch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingPackageError, match=r"spectralmamba\[data\]"):
        fetch(dataset("samson"))
    monkeypatch.delenv("SPECTRALMAMBA_CACHE")
    with pytest.raises(DataError, match="is not here"):
        load_dataset("ksc")
    pixels(tmp_path / "root" / "botswana" / "Botswana_pixels.mat")
    assert load_dataset(small("botswana"), root=tmp_path / "root").scene.shape == (BANDS, ROWS, COLUMNS)


def test_a_file_in_the_cache_without_its_sum_is_checked(site: Site, one: Any, cache: Path) -> None:
    path = cache / "samson" / "Samson.mat"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    one(sha256=sha256(BODY))
    assert checksums.record_path(path).is_file()
    checksums.record_path(path).unlink()
    with pytest.raises(DataError, match="is not the file that was published"):
        one(sha256=sha256(b"other"))
    assert site.asked == []


# By hand


def test_what_is_not_here_names_the_command_and_the_terms() -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("ksc")
    assert "spectralmamba data get ksc" in str(caught.value)
    assert "none stated by the publisher" in str(caught.value)
    with pytest.raises(DataError) as caught:
        load_dataset("houston2018", download=True)
    assert "https://hyperspectral.ee.uh.edu/?page_id=1075" in str(caught.value)
    assert "--from-folder FOLDER" in str(caught.value)


def test_files_are_found_in_a_folder_whatever_their_case(files: dict[str, bytes], tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "by hand" / "deeper"
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name.upper()).write_bytes(body)
    entry = small("pavia-university")
    with pytest.warns(UnverifiedDataWarning):
        fetch(entry, from_folder=tmp_path / "by hand")
    assert (cache / entry.name / "PaviaU.mat").read_bytes() == files["PaviaU.mat"]
    assert load_dataset(entry).split is not None


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.filterwarnings("ignore::spectralmamba.catalog.UnverifiedDataWarning")
def test_files_are_taken_out_of_archives(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    pack(tmp_path / "by hand" / f"Pavia.{kind}", {f"some/folder/{name}": body for name, body in files.items()})
    entry = small("pavia-university")
    fetch(entry, from_folder=tmp_path / "by hand")
    assert load_dataset(entry).scene.shape == (BANDS, ROWS, COLUMNS)


def test_a_downloaded_archive_is_unpacked_and_removed(site: Site, tmp_path: Path, cache: Path) -> None:
    members = augsburg(tmp_path / "published")
    pack(tmp_path / "a.zip", {f"Augsburg/{name}": body for name, body in members.items()})
    packed = (tmp_path / "a.zip").read_bytes()

    def change(file: DataFile) -> DataFile:
        if file.name == "augsburg-ouc.zip":
            return replace(file, urls=(site.add("a.zip", packed),), sha256=sha256(packed))
        return replace(file, sha256=sha256(members[file.name])) if file.name in members else file

    opened = load_dataset(small("augsburg", change), download=True)
    assert opened.split is not None
    assert (opened.split.train.sum(), opened.split.test.sum()) == (2, 3)
    assert opened.labels.attrs["class_names"] == {1: "Forest", 8: "Water"}
    assert not (cache / "augsburg" / "augsburg-ouc.zip").exists()
    assert not list(cache.rglob("*.zip*"))


def test_the_file_of_this_data_set_is_told_from_others_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "WHU-Hi"
    for place, train in (("LongKou", 1), ("HanChuan", 2)):
        truth, first = ground_truth(1, 2), np.zeros((ROWS, COLUMNS), np.uint8)
        first[: 6 * train : 3] = truth[: 6 * train : 3]
        variables = {"LongKou": ("LKtrain100", "LKtest100"), "HanChuan": ("Train100", "Test100")}[place]
        inside = folder / f"WHU-Hi-{place}"
        matlab(inside / f"WHU_Hi_{place}.mat", **{f"WHU_Hi_{place}": cube("float32")})
        matlab(inside / f"WHU_Hi_{place}_gt.mat", **{f"WHU_Hi_{place}_gt": truth})
        matlab(inside / "Training samples" / "Train100.mat", **{variables[0]: first})
        matlab(inside / "Training samples" / "Test100.mat", **{variables[1]: np.where(first > 0, 0, truth)})
    entry = small("whu-hi-longkou")
    with pytest.warns(UnverifiedDataWarning):
        fetch(entry, from_folder=folder)
    split = load_dataset(entry).split
    assert split is not None
    assert split.train.any(axis=1).nonzero()[0].tolist() == [0, 3]


@pytest.mark.filterwarnings("ignore::spectralmamba.catalog.UnverifiedDataWarning")
def test_two_files_of_one_name_are_not_chosen_among(files: dict[str, bytes], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        pavia(tmp_path / "by hand" / folder)
    entry = small("pavia-university", lambda file: replace(file, inside="nowhere"))
    with pytest.raises(DataError, match="cannot be had among the files in the folder"):
        fetch(entry, from_folder=tmp_path / "by hand")
    with pytest.raises(DataError, match=r"several files are called PaviaU.mat"):
        fetch(small("pavia-university"), from_folder=tmp_path / "by hand")


def test_a_wrong_file_in_a_folder_is_refused_and_stays(tmp_path: Path, files: dict[str, bytes], cache: Path) -> None:
    entry = small("pavia-university", lambda file: replace(file, sha256=sha256(b"published")))
    with pytest.raises(DataError, match=r"PaviaU.mat is not the file that was published") as caught:
        fetch(entry, from_folder=tmp_path / "published")
    assert sha256(files["PaviaU.mat"]) in str(caught.value)
    assert (tmp_path / "published" / "PaviaU.mat").read_bytes() == files["PaviaU.mat"]
    assert list((cache / "pavia-university").iterdir()) == []


def test_what_a_folder_lacks_is_said(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "published" / "PaviaU_gt.mat").unlink()
    with pytest.raises(DataError, match=r"missing: PaviaU_gt.mat"):
        fetch(small("pavia-university"), from_folder=tmp_path / "published")
    with pytest.raises(DataError, match="there is no such folder"):
        fetch(small("pavia-university"), from_folder=tmp_path / "nowhere")


def test_a_wrong_file_in_an_archive_does_not_reach_the_cache(tmp_path: Path, cache: Path) -> None:
    pack(tmp_path / "by hand" / "a.zip", {"Samson.mat": BODY})
    with pytest.raises(DataError, match=r"a\.zip: Samson\.mat is not the file that was published"):
        fetch(one_file(sha256=sha256(b"other")), from_folder=tmp_path / "by hand")
    assert list((cache / "samson").iterdir()) == []


# Archives that mean harm


@pytest.mark.parametrize("path", ["../PaviaU.mat", "/tmp/PaviaU.mat", "a/../../PaviaU.mat", "C:\\PaviaU.mat"])
def test_a_member_that_leads_out_of_the_archive_is_refused(path: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(path, b"body")
    target = tmp_path / "cache"
    with pytest.raises(DataError, match="leads out of it"):
        archives.extract(tmp_path / "a.zip", archives.Member(path, 4), target)
    assert not target.exists()


def test_links_are_no_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("PaviaU.mat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("PaviaU.mat")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/hostname")
    for name in ("a.tar", "a.zip"):
        assert archives.members(tmp_path / name) == []


def test_a_member_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "a.zip", {"file": BODY})
    (member,) = archives.members(tmp_path / "a.zip")
    monkeypatch.setattr(archives, "SIZE_LIMIT", 1000)
    with pytest.raises(DataError, match=f"{len(BODY)} bytes or more; expected at most 1000"):
        archives.extract(tmp_path / "a.zip", member, tmp_path / "file")
    # An archive that lies about a member's size is stopped while it is written.
    with pytest.raises(DataError, match="too large"):
        archives.extract(tmp_path / "a.zip", replace(member, size=10), tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_is_told(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "by hand" / name
    pack(path, {"PaviaU.mat": BODY, **{f"x/{other}": body for other, body in files.items()}})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="the archive is damaged"):
        fetch(small("pavia-university"), from_folder=path.parent)


def test_a_damaged_member_leaves_nothing(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {"file": os.urandom(5000)})
    with (tmp_path / "a.zip").open("r+b") as file:
        file.seek(1000)
        file.write(bytes(500))
    (member,) = archives.members(tmp_path / "a.zip")
    with pytest.raises(DataError, match="the archive is damaged"):
        archives.extract(tmp_path / "a.zip", member, tmp_path / "file")
    assert not (tmp_path / "file").exists()


# Opening


def test_wavelengths_of_the_catalogue_are_those_of_a_scene_without(site: Site, files: dict[str, bytes]) -> None:
    wavelengths = tuple(float(400 + 10 * band) for band in range(BANDS))
    entry = on_site("pavia-university", site, files, wavelengths=wavelengths, wavelength_source="a test")
    scene = load_dataset(entry, download=True).scene
    assert scene["wavelength"].values.tolist() == list(wavelengths)
    assert scene.attrs["notes"][-1] == "Wavelengths: a test."


def test_a_scene_of_another_size_is_refused(site: Site, files: dict[str, bytes]) -> None:
    entry = on_site("pavia-university", site, files, shape=(610, 340))
    with pytest.raises(DataError, match="this scene is not Pavia University; found 12 rows × 10 columns"):
        load_dataset(entry, download=True)


@pytest.mark.filterwarnings("ignore::spectralmamba.catalog.UnverifiedDataWarning")
def test_a_split_whose_masks_are_missing_is_none_and_said_to_be(tmp_path: Path) -> None:
    pavia(tmp_path / "published")
    for name in ("TRpavia_fixed.mat", "TSpavia_fixed.mat"):
        (tmp_path / "published" / name).unlink()
    entry = small("pavia-university")
    fetch(entry, from_folder=tmp_path / "published")
    opened = load_dataset(entry)
    assert opened.split is None
    assert "TRpavia_fixed.mat, TSpavia_fixed.mat is missing" in opened.labels.attrs["notes"][-1]


def test_what_does_not_train_tests_where_only_a_training_mask_is_published(tmp_path: Path) -> None:
    root = tmp_path / "root" / "indian_pines"
    truth = ground_truth(2, 3)
    matlab(root / "Indian_pines_corrected.mat", indian_pines_corrected=cube())
    matlab(root / "Indian_pines_gt.mat", indian_pines_gt=truth.astype(float))
    matlab(root / "indianpines_disjoint_dset.mat", indianpines_disjoint_dset=np.where(np.arange(COLUMNS) < 3, truth, 0))
    split = load_dataset(small("indian-pines"), root=tmp_path / "root").split
    assert split is not None
    assert (split.train.sum(), split.test.sum()) == (18, 36)
    assert split.record["notes"] == []


def test_houston_is_labelled_by_its_masks(tmp_path: Path) -> None:
    root = tmp_path / "houston2013"
    root.mkdir()
    truth = ground_truth(1, 15)
    train = np.where(np.arange(COLUMNS) < 3, truth, 0).astype(np.uint8)
    geotiff(root / "2013_IEEE_GRSS_DF_Contest_CASI.tif", cube().transpose(2, 0, 1))
    matlab(root / "houston_gt.mat", houston_gt_tr=train, houston_gt_te=np.where(train > 0, 0, truth).astype(np.uint8))
    opened = load_dataset(small("houston2013"), root=tmp_path)
    assert np.array_equal(opened.labels.values, truth)
    assert opened.labels.attrs["class_names"] == {1: "Healthy grass", 15: "Running Track"}
    assert opened.split is not None
    assert np.array_equal(opened.split.train, train > 0)
    shutil.move(root / "houston_gt.mat", root / "aside")
    matlab(root / "Houston2013_gt.mat", train=train, test=np.where(train > 0, 0, truth).astype(np.uint8))
    again = load_dataset(small("houston2013"), root=tmp_path).split
    assert again is not None
    assert np.array_equal(again.test, opened.split.test)


def test_labels_finer_than_the_scene_count_where_they_agree(tmp_path: Path) -> None:
    root = tmp_path / "houston2018"
    root.mkdir()
    values = np.concatenate([cube("uint16").transpose(2, 0, 1)] * 8)[:50]
    envi(root / "2018_IEEE_GRSS_DFC_HSI_TR", values)
    (root / "2018_IEEE_GRSS_DFC_HSI_TR.hdr").rename(root / "2018_IEEE_GRSS_DFC_HSI_TR.HDR")
    fine = np.kron(ground_truth(1, 20), np.ones((2, 2), np.uint8))
    fine[0, 0], fine[4, 4] = 2, 0
    geotiff(root / "2018_IEEE_GRSS_DFC_GT_TR.tif", fine[None])
    opened = load_dataset(replace(dataset("houston2018"), shape=(ROWS, COLUMNS)), root=tmp_path)
    assert opened.scene.sizes["band"] == 48
    assert opened.scene["wavelength"].values[-1] == 1047.1
    expected = ground_truth(1, 20)
    expected[0, 0] = expected[2, 2] = 0
    assert np.array_equal(opened.labels.values, expected)


def test_whu_hi_is_read_as_envi_with_its_headers(tmp_path: Path) -> None:
    root = tmp_path / "whu_hi_longkou"
    root.mkdir()
    wavelengths = f"wavelength = {{{', '.join(str(400 + 2 * band) for band in range(BANDS))}}}"
    envi(root / "WHU-Hi-LongKou.bsq", cube("float32").transpose(2, 0, 1), wavelengths, "wavelength units = nm")
    envi(root / "WHU-Hi-LongKou_gt.bsq", ground_truth(1, 9)[None])
    opened = load_dataset(small("whu-hi-longkou"), root=tmp_path)
    assert opened.scene["wavelength"].values[1] == 402
    assert opened.labels.attrs["class_names"] == {1: "Corn", 9: "Mixed weed"}
    assert opened.split is None


def test_a_list_of_pixels_is_a_scene_with_nodata_elsewhere(tmp_path: Path) -> None:
    spectra = pixels(tmp_path / "botswana" / "Botswana_pixels.mat")
    opened = load_dataset(small("botswana"), root=tmp_path)
    assert np.array_equal(opened.scene.values[:, 5, 2], spectra[1])
    assert np.isfinite(opened.scene.values).all(axis=0).sum() == 3
    assert opened.labels.attrs["class_names"] == {1: "Water", 14: "Exposed soils"}
    assert set(opened.scene.coords) == {"band", "wavelength", "fwhm", "good"}


def test_a_file_without_the_variables_is_refused(tmp_path: Path) -> None:
    matlab(tmp_path / "samson" / "Samson.mat", Y=np.zeros((3, 4)))
    with pytest.raises(DataError, match=r"variables are missing.*expected S_GT"):
        load_dataset("samson", root=tmp_path)
    (tmp_path / "samson" / "Samson.mat").write_bytes(b"no MATLAB file")
    with pytest.raises(DataError, match="not a MATLAB file"):
        load_dataset("samson", root=tmp_path)


def test_a_mask_of_another_size_is_refused(site: Site, files: dict[str, bytes], tmp_path: Path) -> None:
    other = {**files, "TRpavia_fixed.mat": matlab(tmp_path / "x.mat", TRpavia_fixed=np.ones((3, 4)))}
    with pytest.raises(DataError, match="a mask of 3 × 4 pixels; expected 12 × 10"):
        load_dataset(on_site("pavia-university", site, other), download=True)


def test_what_was_downloaded_but_is_no_scene_is_told_as_ever(site: Site, files: dict[str, bytes]) -> None:
    with pytest.raises(SceneError):
        load_dataset(on_site("pavia-university", site, {**files, "PaviaU.mat": b"x" * 500}), download=True)


def test_ground_truth_of_another_scene_is_told_as_ever(site: Site, files: dict[str, bytes], tmp_path: Path) -> None:
    other = {**files, "PaviaU_gt.mat": matlab(tmp_path / "x.mat", paviaU_gt=np.ones((3, 4)))}
    with pytest.raises(LabelError):
        load_dataset(on_site("pavia-university", site, other), download=True)


# Real data


def test_real_salinas_a_has_its_classes(shared_data: Path) -> None:
    opened = load_dataset("salinas-a", root=shared_data)
    assert opened.scene.shape == (224, 83, 86)
    assert opened.labels.attrs["class_names"][2] == "Corn_senesced_green_weeds"
    counts = np.bincount(opened.labels.values.ravel())
    assert counts[1:].tolist() == [391, 1343, 616, 1525, 674, 799]
    assert not checksums.difference(dataset("salinas-a").file("SalinasA.mat"), Path(opened.scene.attrs["source"]))


def test_real_botswana_pixels_are_where_its_ground_truth_has_labels(shared_data: Path) -> None:
    from spectralmamba.scenes.class_rasters import read_class_raster

    opened = load_dataset("botswana", root=shared_data)
    assert opened.scene.shape == (145, 1476, 256)
    truth = read_class_raster(shared_data / "botswana" / "Botswana_gt.mat").ids
    assert np.array_equal(opened.labels.values, truth)
    assert len(opened.labels.attrs["class_names"]) == 14


def test_real_houston_training_spectra_say_that_they_have_no_neighbours(shared_data: Path) -> None:
    opened = load_dataset("houston2013", root=shared_data)
    assert opened.scene.shape == (144, 1, 2832)
    assert opened.split is None
    assert "neighbours mean nothing" in opened.scene.attrs["notes"][0]
    assert opened.labels.attrs["class_names"][15] == "Running Track"
    assert opened.scene["wavelength"].values[0] == 364.0


def test_real_samson_labels_are_the_materials_of_its_endmembers(shared_data: Path) -> None:
    import scipy.io

    opened = load_dataset("samson", root=shared_data)
    assert opened.scene.shape == (156, 95, 95)
    assert opened.labels.attrs["class_names"] == {1: "Soil", 2: "Tree", 3: "Water"}
    pure = scipy.io.loadmat(shared_data / "samson" / "Samson.mat")["GT"]
    for class_id, spectrum in enumerate(pure, start=1):
        mean = opened.scene.values[:, opened.labels.values == class_id].mean(axis=1)
        others = [np.corrcoef(mean, other)[0, 1] for other in pure]
        assert int(np.argmax(others)) == class_id - 1, spectrum
    assert "largest abundance" in opened.labels.attrs["notes"][0]


def test_real_enmap_has_its_own_wavelengths(shared_data: Path) -> None:
    opened = load_dataset("enmap-potsdam", root=shared_data)
    assert opened.scene.shape == (224, 160, 96)
    assert np.isfinite(opened.scene["wavelength"].values).all()
    assert list(opened.labels.attrs["class_names"]) == [1, 2, 3, 4, 5, 6]


# The command line


def test_the_list_says_how_each_is_had_and_what_is_here(tmp_path: Path) -> None:
    matlab(tmp_path / "samson" / "Samson.mat", Y=np.zeros((3, 4)))
    answer = command_line("data", "list", "s*", "--data-root", tmp_path)
    assert answer.code == 0
    cells = r"[^│]*│[^│]*│[^│]*│[^│]*│ "
    assert re.search(rf"samson {cells}download │ yes", answer.out)
    assert re.search(rf"salinas {cells}download │ (?!yes)", answer.out)
    assert "pavia" not in answer.out


def test_info_says_everything() -> None:
    answer = command_line("data", "info", "houston2013")
    assert answer.code == 0
    said = " ".join(answer.out.split())
    for words in ("page_id=459", "CASI-1500", "349 rows × 1905 columns × 144 bands", "2 832 training", "Running Track"):
        assert words in said
    assert "form or agreement" in said
    assert "--from-folder FOLDER" in said


def test_get_puts_files_into_the_cache_and_says_terms_and_citation(
    site: Site, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = on_site("pavia-university", site, files)
    monkeypatch.setitem(registry_entries(), entry.name, entry)
    answer = command_line("data", "get", entry.name, "--cache", tmp_path / "other")
    assert answer.code == 0, answer.err
    assert (tmp_path / "other" / entry.name / "PaviaU.mat").is_file()
    assert entry.terms in answer.out
    assert "P. Gamba" in answer.out


def test_get_takes_a_folder(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(file: DataFile) -> DataFile:
        return replace(file, sha256=sha256(files[file.name]))

    entry = small("pavia-university", change)
    monkeypatch.setitem(registry_entries(), entry.name, entry)
    answer = command_line("data", "get", entry.name, "--from-folder", tmp_path / "published")
    assert answer.code == 0, answer.err
    assert answer.err == ""


def test_get_tells_what_it_could_not_verify(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry_entries(), "pavia-university", small("pavia-university"))
    answer = command_line("data", "get", "pavia-university", "--from-folder", tmp_path / "published")
    assert answer.code == 0, answer.err
    assert (
        f"Warning: PaviaU.mat is unverified: no checksum of it is known. Its SHA-256 {sha256(files['PaviaU.mat'])}"
        in (answer.err)
    )
    assert ".py" not in answer.err


def test_get_all_goes_on_after_a_failure_and_leaves_out_what_needs_a_form(
    site: Site, files: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = on_site("pavia-university", site, files)
    bad = on_site("ksc", site, {})
    bad = replace(bad, files=tuple(replace(file, urls=(site.url("missing"),)) for file in bad.files))
    entries = registry_entries()
    for name in list(entries):
        if name not in ("houston2013", good.name, bad.name):
            monkeypatch.delitem(entries, name)
    monkeypatch.setitem(entries, good.name, good)
    monkeypatch.setitem(entries, bad.name, bad)
    answer = command_line("data", "get", "--all")
    assert answer.code == 2
    assert "houston2013" in answer.out
    assert "ksc: " in answer.err
    assert "1 of 2 data sets could not be had" in answer.err
    assert (cache / good.name / "PaviaU.mat").is_file()


def test_a_terminal_shows_a_bar_for_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(show, "console", Console(file=written, force_terminal=True, width=100))
    with show.download_bars() as progress:
        assert progress is not None
        progress("PaviaU.mat", 500, 1000)
        progress("PaviaU_gt.mat", 10, None)
    assert "PaviaU.mat" in written.getvalue()
    assert "PaviaU_gt.mat" in written.getvalue()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("get",), "which data sets is not clear"),
        (("get", "ksc", "--all"), "which data sets is not clear"),
        (("get", "pavia-univresity"), "Did you mean 'pavia-university'?"),
        (("info", "nothing-like-it"), "unknown data set"),
        (("get", "houston2018"), "--from-folder FOLDER"),
        (("get", "enmap-potsdam"), "--data-root"),
        (("get", "samson", "--from-folder", "nowhere"), "there is no such folder"),
    ],
)
def test_a_mistake_is_told_with_exit_code_2(words: tuple[str, ...], said: str) -> None:
    answer = command_line("data", *words)
    assert answer.code == 2
    assert said in " ".join(answer.err.split())


def test_opening_the_catalogue_imports_neither_torch_nor_pooch() -> None:
    import subprocess

    code = (
        "import sys, spectralmamba; spectralmamba.dataset('ksc'); "
        "print(sorted({'torch', 'pooch', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def registry_entries() -> dict[str, Entry]:
    from spectralmamba.catalog import registry

    return registry.ENTRIES


def pixels(path: Path) -> np.ndarray:
    """Write three labelled pixels as a list; return their spectra."""
    rows, columns, labels = np.array([[0, 5, 11]]), np.array([[9, 2, 0]]), np.array([[1, 1, 14]])
    spectra = cube()[rows[0], columns[0]]
    matlab(path, spectra=spectra, row=rows, col=columns, label=labels, shape=np.array([[ROWS, COLUMNS]]))
    return spectra


def augsburg(folder: Path) -> dict[str, bytes]:
    truth = ground_truth(1, 8)
    positions = {"augsburg_train": [(0, 0), (3, 0)], "augsburg_test": [(1, 1), (4, 4), (5, 8)]}
    return {
        "augsburg_hsi.mat": matlab(folder / "augsburg_hsi.mat", augsburg_hsi=cube()),
        "augsburg_gt.mat": matlab(folder / "augsburg_gt.mat", augsburg_gt=truth),
        "augsburg_index.mat": matlab(
            folder / "augsburg_index.mat", **{name: np.array(pairs) for name, pairs in positions.items()}
        ),
    }


def pack(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, body in members.items():
                archive.writestr(name, body)
        return
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
