"""Do the plugin's algorithms work in QGIS? Runs them with PyQGIS, without a window, and draws what they load.

    QT_QPA_PLATFORM=offscreen python3 tests/qgis_plugin_check.py COMMAND FOLDER

Needs QGIS and its own Python (Debian: apt install python3-qgis), and no package of this project. COMMAND is an installed
`spectralmamba`; FOLDER holds scene.tif and labels.tif of `spectralmamba simulate`, and takes the results and qgis.png. QGIS's
settings are kept in a folder of their own. Not collected by pytest.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMAND, FOLDER = (Path(each).absolute() for each in sys.argv[1:3])
PROFILE = tempfile.mkdtemp()
os.environ |= {"HOME": PROFILE, "XDG_CONFIG_HOME": PROFILE, "XDG_DATA_HOME": PROFILE, "XDG_RUNTIME_DIR": PROFILE}
# What QGIS sets on other systems: the command must not see it.
os.environ |= {"PYTHONHOME": "/of/qgis", "LD_LIBRARY_PATH": "/of/qgis"}

from qgis.core import (  # noqa: E402 - the environment comes first
    QgsApplication,
    QgsFeature,
    QgsField,
    QgsGeometry,
    QgsLayoutExporter,
    QgsLayoutItemLabel,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsLegendRenderer,
    QgsLegendStyle,
    QgsMapLayerLegendUtils,
    QgsPointXY,
    QgsPrintLayout,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsUnitTypes,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QVariant  # noqa: E402
from qgis.PyQt.QtGui import QFont, QImage  # noqa: E402

SCENE, LABELS = FOLDER / "scene.tif", FOLDER / "labels.tif"
CLASSIFIER, RUN = FOLDER / "trained" / "model.safetensors", FOLDER / "run"
MADE = ("trained", "run", "maps", "other", "stopped", "bin", "reference.gpkg")


class Heard(QgsProcessingFeedback):
    """What an algorithm says; it may be cancelled as soon as it says something."""

    def __init__(self, cancel_at: str | None = None, progress: float = -1) -> None:
        super().__init__(False)
        self.lines: list[str] = []
        self.greatest = 0.0
        self._cancel_at, self._progress = cancel_at, progress
        self.progressChanged.connect(self._moved)

    def setProgressText(self, text: str) -> None:
        self.lines.append(text)
        if self._cancel_at is not None and text.startswith(self._cancel_at):
            self.cancel()

    def _moved(self, progress: float) -> None:
        self.greatest = max(self.greatest, progress)
        if 0 <= self._progress <= progress:
            self.cancel()

    def pushWarning(self, warning: str) -> None:
        self.lines.append(warning)

    def pushConsoleInfo(self, info: str) -> None:
        self.lines.append(info)

    def pushCommandInfo(self, info: str) -> None:
        self.lines.append(info)


def run(name: str, feedback: Heard | None = None, **parameters: Any) -> dict[str, Any]:
    """Run an algorithm and load its layers into the project, as the toolbox does."""
    import processing
    from processing.gui.Postprocessing import handleAlgorithmResults

    context, heard = QgsProcessingContext(), feedback or Heard()
    context.setProject(QgsProject.instance())
    parameters = {key: str(value) if isinstance(value, Path) else value for key, value in parameters.items()}
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"spectralmamba:{name}")
    assert algorithm is not None, f"no algorithm {name}"
    loaded: list[bool] = []

    def load(done: Any, context: Any, feedback: Any) -> None:
        loaded.append(handleAlgorithmResults(done, context, feedback, parameters=parameters))

    for key, value in parameters.items():
        definition = algorithm.parameterDefinition(key)
        assert definition is not None, f"{name} has no parameter {key}"
        if definition.type() in ("rasterDestination", "vectorDestination"):
            parameters[key] = QgsProcessingOutputLayerDefinition(value, QgsProject.instance())
    results = processing.Processing.runAlgorithm(algorithm, parameters, load, heard, context)
    assert heard.isCanceled() or loaded == [True], heard.lines
    return results


def refused(call: Callable[[], object], *words: str) -> None:
    """Check that QGIS is told these words."""
    try:
        call()
    except QgsProcessingException as error:
        said = str(error)
    else:
        said = "nothing was refused"
    assert all(word in said for word in words), said


def layer_called(name: str) -> Any:
    """Return the layer of the project with this name, the newest."""
    layers = QgsProject.instance().mapLayersByName(name)
    assert layers, f"no layer {name} among {[each.name() for each in QgsProject.instance().mapLayers().values()]}"
    return layers[-1]


def label_points(every: int) -> QgsVectorLayer:
    """Return points in memory at pixels of the label raster, with the class in the column crop."""
    raster = QgsRasterLayer(str(LABELS), "labels")
    provider, extent = raster.dataProvider(), raster.extent()
    width, height = extent.width() / raster.width(), extent.height() / raster.height()
    points = QgsVectorLayer(f"Point?crs={raster.crs().authid()}", "points", "memory")
    points.dataProvider().addAttributes([QgsField("crop", QVariant.Int)])
    points.updateFields()
    features = []
    for row in range(0, raster.height(), every):
        for column in range(0, raster.width(), every):
            place = QgsPointXY(extent.xMinimum() + (column + 0.5) * width, extent.yMaximum() - (row + 0.5) * height)
            value, found = provider.sample(place, 1)
            if found and value > 0:
                feature = QgsFeature(points.fields())
                feature.setGeometry(QgsGeometry.fromPointXY(place))
                feature["crop"] = int(value)
                features.append(feature)
    assert points.dataProvider().addFeatures(features)[0]
    assert points.featureCount() > 50
    return points


def reference_layer() -> QgsVectorLayer:
    """Return points in the second layer of a GeoPackage."""
    file, points = FOLDER / "reference.gpkg", label_points(7)
    for name in ("first", "second"):
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.layerName = name
        if file.exists():
            options.actionOnExistingFile = QgsVectorFileWriter.CreateOrOverwriteLayer
        QgsVectorFileWriter.writeAsVectorFormatV3(points, str(file), QgsProject.instance().transformContext(), options)
    layer = QgsVectorLayer(f"{file}|layername=second", "reference", "ogr")
    assert layer.isValid()
    return layer


def check_command(set_command: Callable[[str], None]) -> None:
    """Check what is said of a command that is missing, too old, or none."""

    def call() -> dict[str, Any]:
        return run("map", CLASSIFIER=CLASSIFIER, SCENE=SCENE, OUT=FOLDER / "maps" / "none.tif")

    algorithm = QgsApplication.processingRegistry().createAlgorithmById("spectralmamba:map")
    path, os.environ["PATH"] = os.environ["PATH"], "/nowhere"
    set_command("")
    assert algorithm.canExecute()[0] is False
    assert "pip install" in algorithm.canExecute()[1]
    refused(call, "no spectralmamba on PATH", "python -m venv", "pip install")
    os.environ["PATH"] = path
    old = FOLDER / "bin" / "spectralmamba"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 0.0.1\n")
    old.chmod(0o755)
    set_command(str(old))
    assert "0.0.1" in algorithm.canExecute()[1]
    refused(call, "version 0.0.1", "needs", "--upgrade")
    set_command(str(FOLDER / "nothing"))
    refused(call, "is no program")
    assert not list((FOLDER / "maps").iterdir())
    set_command(str(COMMAND))
    assert algorithm.canExecute()[0] is True, algorithm.canExecute()
    refused(lambda: run("map", CLASSIFIER=CLASSIFIER, OUT=FOLDER / "maps" / "none.tif"), "SCENE_FILE")
    missing = {"CLASSIFIER": FOLDER / "none.safetensors", "SCENE": SCENE, "OUT": FOLDER / "maps" / "none.tif"}
    refused(lambda: run("map", **missing), "Error:", "none.safetensors")
    print("missing, old and wrong commands are refused")


def check_train_and_map() -> None:
    """Check a training from points in memory, and its map with all layers and their styles."""
    heard = Heard()
    points = label_points(4)
    results = run(
        "train",
        heard,
        SCENE=QgsRasterLayer(str(SCENE), "scene"),
        LABELS=points,
        LABEL_COLUMN="crop",
        SPLIT="none",
        MODEL="support_vectors",
        PATCH=3,
        OUT=CLASSIFIER.parent,
    )
    assert Path(results["CLASSIFIER"]).is_file(), heard.lines
    heard = Heard()
    polygons = FOLDER / "maps" / "fields.gpkg"
    out = FOLDER / "maps" / "map.tif"
    run("map", heard, CLASSIFIER=CLASSIFIER, SCENE=SCENE, LAYERS=True, TILE=32, OUT=out, POLYGONS=polygons)
    assert heard.greatest == 100, heard.greatest
    # QGIS names results by their files or by their outputs, as the user likes.
    loaded = {each.source().partition("|")[0]: each for each in QgsProject.instance().mapLayers().values()}
    for file, kind in {out: "paletted", polygons: "categorizedSymbol"}.items():
        assert loaded[str(file)].renderer().type() == kind, (file, loaded[str(file)].renderer().type())
    for name in ("confidence", "novelty"):
        layer = loaded[str(out.with_name(f"map_{name}.tif"))]
        assert layer.renderer().type() == "singlebandpseudocolor", name
    print("train and map give a map that is loaded with its style")


def check_cancelled_map() -> None:
    """Check that a map stopped half-way leaves nothing, and goes on if that is wanted."""
    folder = FOLDER / "stopped"
    out = folder / "map.tif"
    asked = {"CLASSIFIER": CLASSIFIER, "SCENE": SCENE, "TILE": 8, "WORKERS": 1, "OUT": out}
    heard = Heard(progress=20)
    assert run("map", heard, **asked) == {}
    assert 20 <= heard.greatest < 100
    assert not list(folder.iterdir()), list(folder.iterdir())
    heard = Heard(progress=20)
    assert run("map", heard, RESUME=True, **asked) == {}
    assert [each.name for each in folder.iterdir()] == [".map.tif.unfinished"]
    run("map", RESUME=True, **asked)
    assert out.is_file()
    assert not list(folder.glob(".*"))
    whole = FOLDER / "maps" / "map.tif"
    assert out.read_bytes() == whole.read_bytes()
    print("a map is cancelled half-way, and goes on")


def check_cancelled_training() -> None:
    """Check that a training stopped half-way keeps its checkpoint, and goes on."""
    folder = FOLDER / "stopped"
    training = {"SCENE": SCENE, "LABEL_RASTER": LABELS, "PATCH": 1, "PER_CLASS": 5, "STEPS": 40}
    training |= {"SET": "self_training_rounds=0; set_coverage=0"}
    heard = Heard(cancel_at="train")
    assert run("train", heard, OUT=folder / "run", **training) == {}
    left = {each.name for each in (folder / "run").iterdir()}
    assert "checkpoint.safetensors" in left, (left, heard.lines)
    assert "model.safetensors" not in left
    assert not any("part" in name for name in left), left
    assert any("RESUME" in line for line in heard.lines), heard.lines
    results = run("train", OUT=folder / "run", RESUME=True, **training)
    assert Path(results["CLASSIFIER"]).is_file()
    print("a training is cancelled half-way, and goes on")


def check_run() -> None:
    """Check the run that does it all, in a temporary folder and in one of its own."""
    results = run(
        "run",
        SCENE=SCENE,
        LABEL_RASTER=LABELS,
        SPLIT="regions",
        PER_CLASS=30,
        MODEL="support_vectors",
        PATCH=3,
        POLYGONS=True,
        SMALLEST_AREA="3px",
        OUT=RUN,
    )
    assert all(Path(file).exists() for file in results.values()), results
    assert layer_called("Map").renderer().type() == "paletted"
    assert layer_called("Polygons").renderer().type() == "categorizedSymbol"
    temporary = run("train", SCENE=SCENE, LABEL_RASTER=LABELS, MODEL="support_vectors", PATCH=1, OUT="TEMPORARY_OUTPUT")
    assert Path(temporary["CLASSIFIER"]).is_file(), temporary
    report = run("report", FOLDER=RUN)["REPORT"]
    assert Path(report).is_file()
    print("run gives map, polygons and report")


def check_others() -> None:
    """Check scores, areas, polygons and resampling."""
    other = FOLDER / "other"
    heard, reference = Heard(), reference_layer()
    scores = run(
        "evaluate", heard, CLASSIFIER=RUN / "model.safetensors", SCENE=SCENE, LABEL_RASTER=LABELS, OUT=other / "s.json"
    )
    assert 0.5 < scores["OVERALL_ACCURACY"] <= 1, scores
    assert any("test pixels of" in line for line in heard.lines), heard.lines
    heard = Heard()
    reference.selectByExpression('"crop" <> 1')
    run("areas", heard, MAP=RUN / "map.tif", LABELS=reference, LABEL_COLUMN="crop", OUT=other / "areas.csv")
    assert any("--layer=second" in line for line in heard.lines), heard.lines
    assert (other / "areas.csv").is_file()
    run("polygons", MAP=RUN / "map.tif", SMALLEST_AREA="9px", OUT=other / "p.gpkg")
    assert QgsVectorLayer(str(other / "p.gpkg"), "p", "ogr").featureCount() > 1
    run("resample", SCENE=SCENE, SENSOR="DESIS", OUT=other / "desis.tif")
    assert QgsRasterLayer(str(other / "desis.tif"), "desis").bandCount() == 235
    refused(lambda: run("resample", SCENE=SCENE, OUT=other / "none.tif"), "SENSOR", "LIKE")
    print("scores, areas, polygons and resampled scenes are there")


def draw(file: Path) -> None:
    """Draw the map with its legend, as a layout of QGIS does."""
    layer = layer_called("Map")
    layout = QgsPrintLayout(QgsProject.instance())
    layout.initializeDefaults()
    millimetres = QgsUnitTypes.LayoutMillimeters
    layout.pageCollection().page(0).setPageSize(QgsLayoutSize(170, 110, millimetres))
    picture = QgsLayoutItemMap(layout)
    picture.attemptMove(QgsLayoutPoint(5, 5, millimetres))
    picture.attemptResize(QgsLayoutSize(100, 100, millimetres))
    picture.setCrs(layer.crs())
    picture.setLayers([layer])
    picture.setExtent(layer.extent())
    layout.addLayoutItem(picture)
    title = QgsLayoutItemLabel(layout)
    title.setText("Map of spectralmamba:run")
    title.setFont(QFont("DejaVu Sans", 10))
    title.attemptMove(QgsLayoutPoint(109, 5, millimetres))
    title.attemptResize(QgsLayoutSize(60, 6, millimetres))
    layout.addLayoutItem(title)
    legend = QgsLayoutItemLegend(layout)
    legend.setAutoUpdateModel(False)
    tree = legend.model().rootGroup()
    tree.clear()
    shown = tree.addLayer(layer)
    QgsLegendRenderer.setNodeLegendStyle(shown, QgsLegendStyle.Hidden)
    QgsMapLayerLegendUtils.setLegendNodeOrder(shown, list(range(1, 1 + len(layer.renderer().classes()))))
    legend.model().refreshLayerLegend(shown)
    legend.attemptMove(QgsLayoutPoint(107, 12, millimetres))
    layout.addLayoutItem(legend)
    settings = QgsLayoutExporter.ImageExportSettings()
    settings.dpi = 110
    assert QgsLayoutExporter(layout).exportToImage(str(file), settings) == QgsLayoutExporter.Success
    image = QImage(str(file))
    drawn = {image.pixelColor(x, y).name() for x in range(image.width() // 2) for y in range(0, image.height(), 2)}
    classes = {each.color.name() for each in layer.renderer().classes()}
    assert classes <= drawn, classes - drawn


def main() -> None:
    """Check all; the first thing that is wrong ends it."""
    for name in MADE:
        place = FOLDER / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    for name in ("maps", "other", "stopped"):
        (FOLDER / name).mkdir()
    application = QgsApplication([], False)
    application.initQgis()
    sys.path += [str(Path(QgsApplication.pkgDataPath()) / "python" / "plugins"), str(ROOT / "qgis")]
    from processing.core.Processing import Processing
    from processing.core.ProcessingConfig import ProcessingConfig
    from spectralmamba.command import COMMAND_SETTING
    from spectralmamba.plugin import SpectralMambaPlugin

    Processing.initialize()
    plugin = SpectralMambaPlugin()
    plugin.initProcessing()
    try:
        check_command(lambda file: setattr(ProcessingConfig.settings[COMMAND_SETTING], "value", file))
        check_train_and_map()
        check_cancelled_map()
        check_cancelled_training()
        check_run()
        check_others()
        draw(FOLDER / "qgis.png")
    finally:
        QgsProject.instance().clear()
        plugin.unload()
        application.exitQgis()
        shutil.rmtree(PROFILE, ignore_errors=True)
    print(f"The plugin works; its map is drawn in {FOLDER / 'qgis.png'}.")


if __name__ == "__main__":
    main()
