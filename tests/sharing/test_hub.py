"""Classifiers go to a repository and come back; repositories without one are refused. The Hub is a stub on the loopback."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hub_stub import Hub, running, sha

from cli_example import assert_refused, command_line
from spectralmamba import Classifier
from spectralmamba.errors import ClassifierError, HubError, MissingPackageError
from spectralmamba.scenes.writing import write_scene
from spectralmamba.sharing import load_classifier

constants = pytest.importorskip("huggingface_hub.constants")

REPOSITORY = "someone/fields"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "downloads"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with running(Hub()) as stub:
        # The library reads HF_ENDPOINT once, when it is imported, into both.
        template = stub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", stub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield stub


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that looks for any host but the loopback: nothing is asked for, let alone connected to."""
    look_up, strangers = socket.getaddrinfo, []

    def of_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            strangers.append(host)
            raise socket.gaierror(f"{host} is not the loopback")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", of_loopback)
    yield
    assert not strangers


def test_a_classifier_comes_back_as_it_went(
    classifier: Classifier, classifier_file: Path, hub: Hub, tmp_path: Path, small_scene: xr.DataArray
):
    where = {"token": hub.token, "endpoint": hub.address}
    commit = classifier.push_to_hub(REPOSITORY, private=True, license="cc-by-4.0", **where)
    assert commit == f"{hub.address}/{REPOSITORY}/commit/{sha(0)}"
    assert hub.private[REPOSITORY]
    (files,) = hub.commits[REPOSITORY]
    assert files.keys() == {"model.safetensors", "README.md"}
    assert files["model.safetensors"] == classifier_file.read_bytes()
    text = files["README.md"].decode()
    assert 'license: "cc-by-4.0"' in text
    assert f'Classifier.from_hub("{REPOSITORY}")' in text
    assert "Leaks:" in text
    again = Classifier.from_hub(REPOSITORY, **where, cache_dir=tmp_path / "mine", device="cpu")
    xr.testing.assert_identical(again.predict_proba(small_scene), classifier.predict_proba(small_scene))
    assert list((tmp_path / "mine").rglob("model.safetensors"))
    assert not (tmp_path / "downloads").exists()
    assert not any("README" in path for method, path in hub.requests if method == "GET")


def test_a_second_push_is_a_second_commit_and_revisions_are_told_apart(classifier: Classifier, hub: Hub):
    for steps in (1, 2):
        classifier.card["settings"]["steps"] = steps
        classifier.push_to_hub(REPOSITORY, token=hub.token)
    assert len(hub.commits[REPOSITORY]) == 2
    first, last = Classifier.from_hub(REPOSITORY, revision=sha(0)), load_classifier(f"hub:{REPOSITORY}", "cpu")
    assert (first.card["settings"]["steps"], last.card["settings"]["steps"]) == (1, 2)
    assert load_classifier(f"hub:{REPOSITORY}@{sha(0)}", "cpu").card == first.card


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no classifier; found no files; expected model.safetensors"),
        ({"README.md": b"", "config.json": b"{}"}, "holds no classifier; found README.md, config.json"),
        ({"README.md": b"", "pytorch_model.bin": b""}, "only pickles.*found pytorch_model.bin; expected model.safe"),
        ({"weights/best.PT": b"", "scaler.pkl": b""}, "only pickles.*found weights/best.PT, scaler.pkl"),
    ],
)
def test_a_repository_without_a_classifier_is_refused_and_nothing_of_it_is_read(
    hub: Hub, files: dict[str, bytes], words: str
):
    hub.commits[REPOSITORY] = [files]
    with pytest.raises(HubError, match=f"{REPOSITORY}: .*{words}"):
        Classifier.from_hub(REPOSITORY)
    assert all(path.startswith("/api/") for _, path in hub.requests)


def test_a_file_that_is_no_classifier_is_refused(hub: Hub):
    hub.commits[REPOSITORY] = [{"model.safetensors": b"\x80\x04pickled in truth"}]
    with pytest.raises(ClassifierError, match="not a whole safetensors file"):
        Classifier.from_hub(REPOSITORY)


def test_what_the_hub_does_not_have_or_take_is_said(classifier: Classifier, hub: Hub):
    hub.commits[REPOSITORY] = [{}]
    with pytest.raises(HubError, match=r"someone/none: .*token"):
        Classifier.from_hub("someone/none")
    with pytest.raises(HubError, match=f"{REPOSITORY}: "):
        Classifier.from_hub(REPOSITORY, revision="v9")
    with pytest.raises(HubError, match=r"no name of a repository; .*expected owner/name"):
        Classifier.from_hub("too/many/parts")
    with pytest.raises(HubError, match="token") as refused:
        classifier.push_to_hub(REPOSITORY, token="hf_wrong")
    assert "hf_wrong" not in str(refused.value)
    assert hub.commits[REPOSITORY] == [{}]


def test_a_hub_that_does_not_answer_is_said(hub: Hub, tmp_path: Path):
    with running(Hub()) as gone:
        pass
    with pytest.raises(HubError, match="connection"):
        Classifier.from_hub(REPOSITORY, endpoint=gone.address, cache_dir=tmp_path)


def test_the_command_line_pushes_pulls_and_maps(
    classifier_file: Path, hub: Hub, tmp_path: Path, small_scene: xr.DataArray, classifier: Classifier
):
    where = ("--token", hub.token, "--endpoint", hub.address)
    answer = command_line("push", classifier_file, REPOSITORY, "--license", "mit", *where)
    assert answer.code == 0, answer
    assert f"/{REPOSITORY}/commit/" in answer.out
    assert not hub.private[REPOSITORY]
    out = tmp_path / "pulled.safetensors"
    answer = command_line("pull", REPOSITORY, "--out", out, "--revision", "main", *where)
    assert answer.code == 0, answer
    assert out.read_bytes() == classifier_file.read_bytes()
    assert_refused(command_line("pull", REPOSITORY, "--out", out, *where), "exists", "--overwrite")
    write_scene(small_scene, tmp_path / "scene.tif")
    for model in (f"hub:{REPOSITORY}", out):
        answer = command_line("map", model, tmp_path / "scene.tif", "--out", tmp_path / "map.tif", "--overwrite")
        assert answer.code == 0, answer
    assert_refused(command_line("pull", "someone/none", "--out", tmp_path / "no.safetensors", *where), "someone/none")


def test_a_missing_package_is_named(classifier: Classifier, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (classifier.push_to_hub, Classifier.from_hub):
        with pytest.raises(MissingPackageError, match=r"package huggingface_hub;.*spectralmamba\[hub\]"):
            call(REPOSITORY)
