"""Many scenes as one job: which they are, what becomes of each, and how a job goes on."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from spectralmamba import Classifier, map_scene, open_scene
from spectralmamba.archive import FAILED, MAPPED, SKIPPED, TABLE, Outcome, find_scenes, map_scenes
from spectralmamba.errors import OutputError, SceneError
from spectralmamba.scenes.writing import write_scene


@pytest.fixture
def scenes(small_scene: xr.DataArray, tmp_path: Path) -> list[Path]:
    """Three scenes in a folder; the second is cut short, which nobody sees before it is opened."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "c")):
        write_scene(small_scene.roll(x=number, roll_coords=False), folder / f"{name}.tif")
    damaged = folder / "b.tif"
    damaged.write_bytes(damaged.read_bytes()[:300])
    return [folder / f"{name}.tif" for name in ("a", "b", "c")]


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of the table of maps."""
    with (folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def outcomes_of(found: list[Outcome]) -> list[str]:
    return [outcome.outcome for outcome in found]


def test_a_scene_that_fails_is_told_and_does_not_stop_the_others(
    classifier: Classifier, scenes: list[Path], tmp_path: Path
) -> None:
    seen: list[Outcome] = []
    found = map_scenes(classifier, scenes, tmp_path / "maps", on_scene=seen.append)
    assert found == seen
    assert outcomes_of(found) == [MAPPED, FAILED, MAPPED]
    assert str(scenes[1]) in found[1].reason
    for name in ("a", "c"):
        map_scene(classifier, open_scene(tmp_path / "scenes" / f"{name}.tif"), tmp_path / "alone.tif")
        assert (tmp_path / "maps" / f"{name}_map.tif").read_bytes() == (tmp_path / "alone.tif").read_bytes()
    assert not (tmp_path / "maps" / "b_map.tif").exists()
    table = rows(tmp_path / "maps")
    assert [(row["scene"], row["outcome"]) for row in table] == [
        (str(scene), outcome.outcome) for scene, outcome in zip(scenes, found, strict=True)
    ]
    assert int(table[0]["pixels"]) == found[0].pixels > 0
    assert table[1]["reason"] == found[1].reason


def test_a_job_goes_on_with_what_is_not_mapped(
    classifier: Classifier, scenes: list[Path], tmp_path: Path, small_scene: xr.DataArray
) -> None:
    out = tmp_path / "maps"
    map_scenes(classifier, scenes, out)
    before = (out / "a_map.tif").stat().st_mtime_ns
    write_scene(small_scene, scenes[1])
    os.utime(scenes[2], ns=(1, 1))
    found = map_scenes(classifier, scenes, out, resume=True)
    assert outcomes_of(found) == [SKIPPED, MAPPED, MAPPED]  # the last has changed
    assert (out / "a_map.tif").stat().st_mtime_ns == before
    assert [row["outcome"] for row in rows(out)] == [MAPPED] * 3
    (out / "c_map.tif").unlink()
    assert outcomes_of(map_scenes(classifier, scenes, out, resume=True)) == [SKIPPED, SKIPPED, MAPPED]
    other = Classifier(
        classifier.network,
        classifier.transform,
        classifier.card | {"data": "other"},
        classifier.novelty,
        classifier.sets,
    )
    assert outcomes_of(map_scenes(other, scenes, out, resume=True)) == [MAPPED] * 3


def test_a_stopped_job_goes_on_in_the_scene_that_was_stopped(
    classifier: Classifier, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectralmamba import inference

    monkeypatch.setattr(inference, "BLOCK", 4)
    out, calls = tmp_path / "maps", []

    def stop(done: int, _: int) -> None:
        calls.append(done)
        if len(calls) == 12:
            raise KeyboardInterrupt

    good = [scenes[0], scenes[2]]
    with pytest.raises(KeyboardInterrupt):
        map_scenes(classifier, good, out, tile=4, on_tile=stop)  # in the third of nine tiles of the second
    seen: list[int] = []
    found = map_scenes(classifier, good, out, resume=True, on_tile=lambda done, _: seen.append(done))
    assert outcomes_of(found) == [SKIPPED, MAPPED]
    assert seen[0] == 3 * 16
    map_scene(classifier, open_scene(scenes[2]), tmp_path / "alone.tif")
    assert (out / "c_map.tif").read_bytes() == (tmp_path / "alone.tif").read_bytes()


def test_maps_that_are_there_are_neither_lost_nor_silently_left(
    classifier: Classifier, scenes: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    map_scenes(classifier, [scenes[0]], out)
    with pytest.raises(OutputError, match="this map exists") as error:
        map_scenes(classifier, scenes, out)
    assert "--resume" in str(error.value)
    assert outcomes_of(map_scenes(classifier, [scenes[0]], out, overwrite=True)) == [MAPPED]


@pytest.mark.parametrize("damage", ["cut,sho", '"', "a,b,mapped,,x,1,s,y,z,c"])
def test_a_damaged_row_of_the_table_does_not_count(
    classifier: Classifier, scenes: list[Path], tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "maps"
    map_scenes(classifier, [scenes[0]], out)
    with (out / TABLE).open("a") as file:
        file.write("\r\n" + damage)
    assert outcomes_of(map_scenes(classifier, [scenes[0], scenes[2]], out, resume=True)) == [SKIPPED, MAPPED]
    assert [row["outcome"] for row in rows(out)] == [MAPPED] * 2


def test_scenes_of_other_bands_are_resampled_or_fail_with_the_reason(
    classifier: Classifier, scenes: list[Path], tmp_path: Path, small_scene: xr.DataArray
) -> None:
    write_scene(small_scene.isel(band=slice(None, None, -1)), tmp_path / "scenes" / "d.tif")
    write_scene(small_scene[:-1], tmp_path / "scenes" / "e.tif")
    others = [tmp_path / "scenes" / "d.tif", tmp_path / "scenes" / "e.tif"]
    found = map_scenes(classifier, [*others, scenes[0]], tmp_path / "maps")
    assert outcomes_of(found) == [MAPPED, FAILED, MAPPED]
    assert "does not measure" in found[1].reason
    assert [row["resampled"][:22] for row in rows(tmp_path / "maps")] == ["resampled from d.tif (", "", ""]
    maps = [(tmp_path / "maps" / f"{name}_map.tif") for name in "da"]
    with rasterio.open(maps[0]) as reversed_, rasterio.open(maps[1]) as plain:
        np.testing.assert_array_equal(reversed_.read(), plain.read())
    found = map_scenes(classifier, others, tmp_path / "maps", resume=True, allow_missing_range=True)
    assert outcomes_of(found) == [SKIPPED, MAPPED]
    assert "filled from the other bands" in found[1].resampled


def test_two_scenes_of_one_name_and_maps_among_scenes_are_refused(
    classifier: Classifier, scenes: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match="two scenes would have one map"):
        map_scenes(classifier, [scenes[0], tmp_path / "other" / "a.tif"], tmp_path / "maps")
    with pytest.raises(OutputError, match="among the scenes"):
        map_scenes(classifier, scenes, tmp_path / "scenes")
    assert not (tmp_path / "maps").exists()


def test_folders_lists_and_items_say_which_scenes_are_meant(scenes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "scenes" / "a.tif.aux.xml").write_text("<PAMDataset/>")
    (tmp_path / "scenes" / ".hidden.tif").write_text("")
    (tmp_path / "scenes" / "cube.bil").write_text("")
    (tmp_path / "scenes" / "cube.hdr").write_text("")
    expected = [*map(str, scenes), str(tmp_path / "scenes" / "cube.hdr")]
    assert find_scenes([tmp_path / "scenes"]) == expected
    listed = tmp_path / "list.txt"
    listed.write_text("# two\nscenes/a.tif\n\n/elsewhere/b.tif\n")
    assert find_scenes([listed]) == [str(scenes[0]), "/elsewhere/b.tif"]
    items = {
        "type": "FeatureCollection",
        "features": [
            {"id": "1", "assets": {"thumb": {"href": "t.tif"}, "cube": {"href": "scenes/a.tif", "roles": ["data"]}}},
            {"id": "2", "assets": {"thumb": {"href": "t.png"}, "cube": {"href": "file:///other/my%20c.hdr"}}},
            {"id": "3", "assets": {"cube": {"href": "https://example.org/c.tif", "roles": ["data"]}}},
        ],
    }
    (tmp_path / "items.json").write_text(json.dumps(items))
    assert find_scenes([tmp_path / "items.json"]) == [str(scenes[0]), "/other/my c.hdr", "https://example.org/c.tif"]
    (tmp_path / "one.json").write_text(json.dumps({"type": "Feature", **items["features"][0]}))
    assert find_scenes([tmp_path / "one.json", scenes[2]]) == [str(scenes[0]), str(scenes[2])]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"type": "FeatureCollection"}', '{"type": "Feature", "id": "1", "assets": {"a": {}}}']
)
def test_what_is_no_list_of_items_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "items.json").write_text(content)
    with pytest.raises(SceneError, match=r"no list of scenes|cannot be read"):
        find_scenes([tmp_path / "items.json"])


def test_items_without_data_folders_without_scenes_and_missing_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "item.json").write_text('{"type": "Feature", "id": "S1", "assets": {"t": {"href": "t.png"}}}')
    with pytest.raises(SceneError, match="S1"):
        find_scenes([tmp_path / "item.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match="holds no scene"):
        find_scenes([tmp_path / "empty"])
    with pytest.raises(SceneError, match="cannot be read"):
        find_scenes([tmp_path / "none.txt"])


def test_remote_scenes_fail_each_for_itself(classifier: Classifier, scenes: list[Path], tmp_path: Path) -> None:
    found = map_scenes(classifier, ["https://example.org/x.tif", scenes[0]], tmp_path / "maps")
    assert outcomes_of(found) == [FAILED, MAPPED]
    assert "only local files" in found[0].reason


def test_the_command_maps_a_folder_and_leaves_with_2_if_a_scene_failed(
    classifier: Classifier, scenes: list[Path], tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from spectralmamba.cli import app

    classifier.save(tmp_path / "model.safetensors")
    words = ["map", str(tmp_path / "model.safetensors"), str(tmp_path / "scenes"), "--out", str(tmp_path / "maps")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 2
    assert "2 mapped, 0 skipped, 1 failed" in answer.output
    assert "b.tif" in answer.output.split("failed")[-1]
    assert np.array_equal(
        sorted(path.name for path in (tmp_path / "maps").glob("*_map.tif")), ["a_map.tif", "c_map.tif"]
    )
    scenes[1].unlink()
    answer = CliRunner().invoke(app, [*words, "--resume"])
    assert answer.exit_code == 0
    assert "0 mapped, 2 skipped, 0 failed" in answer.output
