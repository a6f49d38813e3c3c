from __future__ import annotations

import time

import pytest

from spectralmamba.errors import SceneError
from spectralmamba.scenes.products import xml
from spectralmamba.scenes.products.xml import read_xml

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))

BOMBS = {
    "billion laughs": f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]><x>&l11;</x>',
    "quadratic blow-up": f'<!DOCTYPE x [<!ENTITY a "{"a" * 200_000}">]><x>{"&a;" * 100_000}</x>',
    "external entity": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
    "external document type": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><x/>',
    "parameter entity": '<!DOCTYPE x [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]><x/>',
    "deep nesting": "<a>" * 1_000_000,
    "many elements": "<a>" + "<b/>" * 1_000_000 + "</a>",
    "undefined entity": "<x>&nothing;</x>",
    "no XML": "hello",
    "nothing": "",
    "cut off": "<x><y>",
    "unknown encoding": '<?xml version="1.0" encoding="klingon"?><x/>',
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(tmp_path, name):
    path = tmp_path / "metadata.xml"
    path.write_text(BOMBS[name])
    start = time.process_time()
    with pytest.raises(SceneError, match=r"metadata\.xml: (this XML is not read|cannot be read as XML)"):
        read_xml(path)
    assert time.process_time() - start < 1  # what a refusal may take at most; it takes some milliseconds


def test_huge_files_are_refused_unread(tmp_path):
    path = tmp_path / "metadata.xml"
    with path.open("wb") as file:
        file.truncate(500_000_000)
    start = time.process_time()
    with pytest.raises(SceneError, match="found 500000000 bytes; expected at most"):
        read_xml(path)
    assert time.process_time() - start < 1


def test_depth_and_count_are_bounded(tmp_path):
    path = tmp_path / "metadata.xml"
    for depth, fine in ((xml.MOST_DEPTH, True), (xml.MOST_DEPTH + 1, False)):
        path.write_text("<a>" * depth + "</a>" * depth)
        if fine:
            assert read_xml(path).root.tag == "a"
        else:
            with pytest.raises(SceneError, match="a depth of at most"):
                read_xml(path)


def test_usual_documents_are_read(tmp_path):
    path = tmp_path / "metadata.xml"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-16"?><p:a xmlns:p="x"><b> 1.5 </b><c>&amp; &#233;</c></p:a>',
        encoding="utf-16",
    )
    read = read_xml(path)
    assert read.root.tag == "a"
    assert read.number("b") == 1.5
    assert read.text("c") == "& é"
    assert read.text("d") is None


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(SceneError, match="cannot be read as XML"):
        read_xml(tmp_path / "none.xml")
