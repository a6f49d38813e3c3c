"""Maps by the workers of a Dask cluster, to the bytes of one process; scenes that Dask holds, classified when asked for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import torch
import xarray as xr

from interrupted import after, contents, stop
from spectralmamba import Classifier, Settings, cluster, fit, inference, map_scene, open_scene, split_random
from spectralmamba.archive import MAPPED, map_scenes
from spectralmamba.errors import ClusterError, MissingPackageError, OutputError, SceneError
from spectralmamba.scenes import simulate_scene
from spectralmamba.scenes.writing import write_scene

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """A client of two worker processes of one thread each."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),  # a worker that starts slowly is not lost
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as two,
        distributed.Client(two, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene of 150 × 200 pixels, 10 bands and a hole, as GeoTIFF, and a map that one process made of it."""
    folder = tmp_path_factory.mktemp("cluster")
    scene, labels = simulate_scene(rows=150, columns=200, bands=10, classes=3)
    scene.values[:, 60:70, 100:131] = np.nan
    write_scene(scene, folder / "scene.tif")
    settings = Settings(steps=6, patch=3, batch_size=8, self_training_rounds=0)
    classifier = fit(scene, labels, split_random(labels, per_class=4, patch=3), settings, device="cpu")
    classifier.save(folder / "model.safetensors")
    (folder / "unbroken").mkdir()
    map_scene(Classifier.load(folder / "model.safetensors", "cpu"), open_scene(folder / "scene.tif"), _map(folder))
    return folder


def _map(folder: Path) -> Path:
    return folder / "unbroken" / "map.tif"


@pytest.fixture
def classifier(made: Path) -> Classifier:
    """A classifier of that scene."""
    return Classifier.load(made / "model.safetensors", "cpu")


@pytest.fixture
def scene(made: Path) -> xr.DataArray:
    """That scene, in its file."""
    return open_scene(made / "scene.tif")


@pytest.fixture
def unbroken(made: Path) -> dict[str, bytes]:
    """The files that one process made."""
    return contents(made / "unbroken")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for maps."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_workers_write_the_map_of_one_process(
    client: distributed.Client, classifier: Classifier, scene: xr.DataArray, out: Path, unbroken: dict[str, bytes]
) -> None:
    done: list[tuple[int, int]] = []
    files = map_scene(classifier, scene, out / "map.tif", tile=64, dask=client, on_tile=lambda *at: done.append(at))
    assert contents(out) == unbroken
    assert len(done) == 12
    assert done[-1] == (150 * 200, 150 * 200)
    assert files.pixels == np.isfinite(scene.values).all(0).sum()


def test_workers_resample_a_scene_of_other_bands_themselves(
    client: distributed.Client, classifier: Classifier, scene: xr.DataArray, out: Path
) -> None:
    other = scene.assign_coords(wavelength=scene["wavelength"] + 5)
    alone = map_scene(classifier, other, out / "alone.tif")
    for name, held in {"file": other, "dask": other.chunk(y=50, x=70)}.items():
        files = map_scene(classifier, held, out / f"{name}.tif", tile=64, dask=client)
        assert files.confidence.read_bytes() == alone.confidence.read_bytes()


@pytest.mark.parametrize("held", ["in memory", "by dask", "with a relative path"])
def test_workers_get_scenes_of_all_kinds(
    client: distributed.Client,
    classifier: Classifier,
    scene: xr.DataArray,
    out: Path,
    unbroken: dict[str, bytes],
    held: str,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(made)  # workers are elsewhere
    kinds = {
        "in memory": lambda: scene.load(),
        "by dask": lambda: scene.chunk(y=50, x=70),
        "with a relative path": lambda: open_scene("scene.tif"),
    }
    map_scene(classifier, kinds[held](), out / "map.tif", dask=client)
    assert contents(out) == unbroken


def test_the_tiles_are_as_many_as_keep_all_workers_busy(client: distributed.Client, classifier: Classifier) -> None:
    assert cluster.smaller_tiles(client, classifier, (150, 200), (192, 256)) == (64, 64)
    assert cluster.smaller_tiles(client, classifier, (10_000, 200), (640, 256)) == (640, 256)
    assert cluster.smaller_tiles(client, classifier, (10, 10), (64, 64)) == (64, 64)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("allowed", [0, 3])
def test_the_tiles_of_killed_workers_run_again(
    client: distributed.Client,
    classifier: Classifier,
    scene: xr.DataArray,
    out: Path,
    unbroken: dict[str, bytes],
    allowed: int,
) -> None:
    def allow(deaths: int, dask_scheduler: distributed.Scheduler) -> None:
        dask_scheduler.allowed_failures = deaths

    def kill() -> None:
        for process in workers if allowed else workers[:1]:
            os.kill(process, signal.SIGKILL)

    workers = list(client.run(os.getpid).values())
    client.run_on_scheduler(allow, allowed)  # with 0 Dask itself tries no tile twice
    try:
        map_scene(classifier, scene, out / "map.tif", tile=64, dask=client, on_tile=after(1, kill))
    finally:
        client.run_on_scheduler(allow, 3)
        client.wait_for_workers(2)
    assert contents(out) == unbroken


def test_a_stopped_map_goes_on_and_leaves_no_task_behind(
    client: distributed.Client, classifier: Classifier, scene: xr.DataArray, out: Path, unbroken: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        map_scene(
            classifier, scene, out / "map.tif", tile=64, dask=client, keep_unfinished=True, on_tile=after(4, stop)
        )
    assert {name.rpartition(".")[2] for name in contents(out)} == {"tif", "json", "txt", "unfinished/lock"}
    seen: list[int] = []
    map_scene(
        classifier, scene, out / "map.tif", dask=client, resume=True, on_tile=lambda done, _: seen.append(len(seen))
    )
    assert len(seen) == 9  # what was there, and eight tiles
    assert contents(out) == unbroken


KILLED = """
import sys, time
from spectralmamba import Classifier, map_scene, open_scene

def on_tile(*_):
    print("tile", flush=True)
    time.sleep(0.2)

if __name__ == "__main__":
    classifier, scene = Classifier.load(sys.argv[1], "cpu"), open_scene(sys.argv[2])
    map_scene(classifier, scene, sys.argv[3], tile=64, dask=sys.argv[4], on_tile=on_tile)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_map_goes_on_with_a_cluster_or_without(
    client: distributed.Client,
    classifier: Classifier,
    scene: xr.DataArray,
    out: Path,
    unbroken: dict[str, bytes],
    made: Path,
    tmp_path: Path,
) -> None:
    words = [str(made / "model.safetensors"), scene.attrs["source"], str(out / "map.tif"), _address(client)]
    with subprocess.Popen([sys.executable, "-c", KILLED, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "tile\n"
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in out.iterdir()] == [".map.tif.unfinished"]
    shutil.copytree(out, tmp_path / "again")
    for folder, by in ((out, client), (tmp_path / "again", None)):
        seen: list[int] = []
        map_scene(
            classifier,
            scene,
            folder / "map.tif",
            dask=by,
            resume=True,
            on_tile=lambda done, _, seen=seen: seen.append(done),
        )
        assert len(seen) <= 11
        assert contents(folder) == unbroken


def _address(client: distributed.Client) -> str:
    assert client.scheduler is not None
    return client.scheduler.address


def test_many_scenes_and_the_command_take_an_address(
    client: distributed.Client,
    classifier: Classifier,
    scene: xr.DataArray,
    out: Path,
    unbroken: dict[str, bytes],
    made: Path,
) -> None:
    from typer.testing import CliRunner

    from spectralmamba.cli import app

    found = map_scenes(classifier, [made / "scene.tif"], out / "maps", dask=_address(client))
    assert [outcome.outcome for outcome in found] == [MAPPED]
    assert (out / "maps" / "scene_map.tif").read_bytes() == unbroken["map.tif"]
    words = ["map", str(made / "model.safetensors"), str(made / "scene.tif"), "--device", "cpu"]
    answer = CliRunner().invoke(app, [*words, "--out", str(out / "m.tif"), "--dask", _address(client)])
    assert answer.exit_code == 0, answer.output
    assert (out / "m.tif").read_bytes() == unbroken["map.tif"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "", "http://example.org"])
def test_an_address_where_nobody_answers_is_told_soon(
    classifier: Classifier, scene: xr.DataArray, out: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        map_scene(classifier, scene, out / "map.tif", dask=address)
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        map_scenes(classifier, [scene.attrs["source"]], out / "maps", dask=address)
    assert list(out.iterdir()) == []


def test_without_distributed_the_extra_is_named(
    classifier: Classifier, scene: xr.DataArray, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r'pip install "spectralmamba\[cluster\]"'):
        map_scene(classifier, scene, out / "map.tif", dask="tcp://127.0.0.1:9")


@pytest.mark.parametrize("version", ["0.0.9", metadata.PackageNotFoundError("spectralmamba")])
def test_workers_of_another_version_are_refused(
    client: distributed.Client,
    classifier: Classifier,
    scene: xr.DataArray,
    out: Path,
    version: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "run", lambda *_, **__: {"tcp://worker:1": version})
    with pytest.raises(ClusterError, match=r"version of spectralmamba.*tcp://worker:1.*same version") as error:
        map_scene(classifier, scene, out / "map.tif", dask=client)
    assert ("none" if isinstance(version, Exception) else "0.0.9") in str(error.value)
    assert list(out.iterdir()) == []


def test_workers_that_come_later_are_checked_by_each_task(
    client: distributed.Client,
    classifier: Classifier,
    scene: xr.DataArray,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "_check_workers", lambda *_: None)
    classify = cluster._classify_tile

    def submit(
        function: object, job: cluster._Job, *args: object, pure: bool, submit=client.submit
    ) -> distributed.Future:
        assert function is classify
        return submit(classify, replace(job, version="0.0.9"), *args, pure=pure)

    monkeypatch.setattr(client, "submit", submit)
    with pytest.raises(ClusterError, match=r"version of spectralmamba; found .* on .*; expected 0\.0\.9\. Install"):
        map_scene(classifier, scene, out / "map.tif", dask=client)


@pytest.mark.skipif(sys.platform != "linux", reason="needs paths that each process sees for itself")
def test_workers_that_do_not_see_the_scene_or_the_folder_are_told(
    client: distributed.Client, classifier: Classifier, scene: xr.DataArray, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(out / "scene.npy", scene.values)
    with (out / "scene.npy").open("rb") as file:
        ours = open_scene(f"/proc/self/fd/{file.fileno()}", band_axis=0)
        ours["wavelength"] = scene["wavelength"]
        with pytest.raises(SceneError, match=r"/proc/self/fd/\d+: a worker does not see the scene's file"):
            map_scene(classifier, ours, out / "map.tif", dask=client)
    (out / "scene.npy").unlink()
    assert list(out.iterdir()) == []
    monkeypatch.chdir(out)
    with pytest.raises(ClusterError, match=r"a worker cannot write to the folder.*no such folder"):
        map_scene(classifier, scene, "/proc/self/cwd/map.tif", dask=client)
    assert list(out.iterdir()) == []


def test_errors_of_workers_come_as_they_were(
    client: distributed.Client, classifier: Classifier, scene: xr.DataArray, out: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "scene.tif"
    raw.write_bytes(Path(scene.attrs["source"]).read_bytes())
    damaged = open_scene(raw)
    whole = raw.read_bytes()
    raw.write_bytes(whole[:5000] + bytes(len(whole) - 5000))
    with pytest.raises(SceneError, match=r"scene\.tif: cannot be opened.*copy or download it again\.$"):
        map_scene(classifier, damaged, out / "map.tif", dask=client)
    assert list(out.iterdir()) == []


def test_a_part_that_cannot_be_written_is_told(classifier: Classifier, tmp_path: Path) -> None:
    job = cluster._Job("", tmp_path / "none", "", "cpu", (4, 4), None, 1, lambda tile: {"classes": tile.ids}, "float32")
    square = slice(0, 4), slice(0, 4)
    tile = inference.tile_alone(classifier, (4, 4), *square, np.ones((len(classifier.bands), 4, 4), np.float32))
    with pytest.raises(OutputError, match=r"cannot write its part.*Free some space"):
        cluster._write_part(job, tile)


def test_tiles_whose_workers_always_die_are_given_up(scene: xr.DataArray) -> None:
    submitted: list[Deadly] = []

    class Deadly:
        key = "deadly"

        def add_done_callback(self, call: Callable[[Deadly], None]) -> None:
            submitted.append(self)
            call(self)

        def result(self) -> None:
            raise distributed.KilledWorker("deadly", SimpleNamespace(address="tcp://worker:1"), 3)

    class Nobody:
        def nthreads(self) -> dict[str, int]:
            return {}

        def cancel(self, futures: list[Deadly]) -> None:
            assert futures == []

    with pytest.raises(SceneError, match="died of the same tile again and again"):
        list(cluster._results(Nobody(), Deadly, iter([()]), scene))  # type: ignore[arg-type]
    assert len(submitted) == cluster._ATTEMPTS


@pytest.mark.parametrize(
    ("say", "chunks"),
    [
        ("predict", {"y": 64, "x": 64}),
        ("predict_sets", {"y": 64, "x": 128}),
        ("predict_proba", {"y": 37, "x": 90, "band": 4}),
        ("predict_proba", {"y": 1}),
        ("predict_proba", {}),
    ],
)
def test_a_scene_that_dask_holds_is_classified_lazily_to_the_same_bits(
    classifier: Classifier, scene: xr.DataArray, say: str, chunks: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[object] = []
    tile_alone = inference.tile_alone

    def counting(*args: object) -> inference.Tile:
        computed.append(args)
        return tile_alone(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(inference, "tile_alone", counting)
    lazy = getattr(classifier, say)(scene.chunk(chunks))
    assert lazy.chunks is not None
    assert computed == []
    expected = getattr(classifier, say)(scene)
    lazy.isel(y=slice(0, 10), x=slice(0, 10)).compute()
    assert len(computed) == 1
    xr.testing.assert_identical(lazy.compute(), expected)
    assert lazy.dtype == expected.dtype
    assert lazy.shape == expected.shape


@pytest.mark.parametrize("shape", [(130, 66), (64, 65), (1, 1), (65, 200)])
def test_last_chunks_smaller_than_a_patch_reaches_are_no_matter(scene: xr.DataArray, shape: tuple[int, int]) -> None:
    whole, labels = simulate_scene(rows=20, columns=20, bands=10, classes=2)
    settings = Settings(steps=2, patch=7, batch_size=8, self_training_rounds=0)
    classifier = fit(whole, labels, split_random(labels, per_class=4, patch=7), settings, device="cpu")
    part = scene.isel(y=slice(0, shape[0]), x=slice(0, shape[1])).assign_coords(wavelength=whole["wavelength"])
    lazy = classifier.predict_proba(part.chunk(y=64, x=64))
    xr.testing.assert_identical(lazy.compute(), classifier.predict_proba(part))


def test_workers_compute_what_is_lazy(
    client: distributed.Client, classifier: Classifier, scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = classifier.predict(scene.chunk(y=64, x=64))
    classifiers = [key for key in lazy.data.dask if str(key).startswith("classifier-")]
    assert len(classifiers) == 1
    found = client.compute(lazy).result()
    xr.testing.assert_identical(found, classifier.predict(scene))


def test_many_at_once_give_torch_its_threads_back(classifier: Classifier, scene: xr.DataArray) -> None:
    before = torch.get_num_threads()
    expected = classifier.predict_proba(scene)
    try:
        torch.set_num_threads(3)
        found: list[xr.DataArray] = []
        callers = [
            threading.Thread(target=lambda: found.append(classifier.predict_proba(scene.chunk(y=64, x=64)).compute()))
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(found) == 3
    for each in found:
        xr.testing.assert_identical(each, expected)
