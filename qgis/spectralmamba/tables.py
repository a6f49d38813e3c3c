"""The algorithms as tables: which parameter of QGIS is which argument or option of the command. Needs no QGIS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """A parameter of an algorithm.

    Attributes:
        name: Its name in QGIS.
        kind: One of KINDS.
        label: What the user reads beside it.
        option: The command's option, as `--seed`, or the name of its argument, as `scene`, for which several parameters may stand;
            None of what the plugin does itself.
        default: The command's own default, which is not handed on; None where it has none or decides by itself.
        needed: Whether QGIS asks for a value.
        advanced: Whether it is among the advanced parameters.
        choices: What a "choice" or "choices" may be.
        least: The least number.
        most: The greatest number.
        of: Of a "field" the parameter that has the layer.
        files: Of a "file" or a "file to write" its filter; of a "folder" and others nothing.
    """

    name: str
    kind: str
    label: str
    option: str | None = None
    default: Any = None
    needed: bool = False
    advanced: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    of: str = ""
    files: str = ""

    @property
    def is_argument(self) -> bool:
        """Whether the command takes it by its place, not by a name."""
        return self.option is not None and not self.option.startswith("--")


KINDS = (
    "raster",
    "vector",
    "field",
    "file",
    "folder",
    "choice",
    "choices",
    "whole number",
    "number",
    "text",
    "texts",
    "flag",
    "raster to write",
    "polygons to write",
    "file to write",
    "folder to write",
)


@dataclass(frozen=True)
class Algorithm:
    """An algorithm: a command with its parameters.

    Attributes:
        command: The command's name, and the algorithm's.
        title: What the toolbox shows.
        help: What the dialog shows.
        parameters: In the order of the dialog; those of arguments in the command's order.
        always: Options that every run has, because QGIS has asked already.
    """

    command: str
    title: str
    help: str
    parameters: tuple[Parameter, ...]
    always: tuple[str, ...] = ()


SIMPLE_MODELS = ("label_propagation", "support_vectors", "logistic_regression")
NETWORKS = (
    "spectral_mamba",
    "cas_rnn",
    "cnn1d",
    "cnn2d",
    "cnn3d",
    "gru",
    "hybridsn",
    "lstm",
    "mamba_hsi",
    "mlp",
    "spectralformer",
    "ssftt",
    "vit",
    "vit_pieces",
)
MODELS = (NETWORKS[0], "auto", *SIMPLE_MODELS, *NETWORKS[1:])
SPLITS = ("random", "fields", "blocks", "regions", "columns", "rows", "masks", "none")
RARE_CLASSES = ("as drawn", "balanced batches", "balanced loss", "logit adjustment", "prior correction")
MASKED = ("cloud", "shadow", "cirrus", "haze", "snow", "saturated", "defective")
FORMATS = ("matlab", "envi", "geotiff", "numpy", "zarr", "enmap", "prisma", "emit", "desis", "aviris")
SENSORS = ("EnMAP", "PRISMA", "DESIS", "EMIT", "AVIRIS-NG", "AVIRIS-3", "AVIRIS-5")


def _scene(option: str = "scene") -> tuple[Parameter, ...]:
    return (
        Parameter("SCENE", "raster", "Scene", option),
        Parameter("SCENE_FILE", "file", "Or a scene that is no layer: product file, zip, .mat, .npy, .zarr", option),
    )


def _labels(option: str = "labels", what: str = "Labels") -> tuple[Parameter, ...]:
    return (
        Parameter("LABELS", "vector", f"{what}: points or polygons", option),
        Parameter("LABEL_COLUMN", "field", "Column of the class", "--label-column", of="LABELS"),
        Parameter("LABEL_RASTER", "raster", f"Or {what.lower()}: raster of class ids", option),
        Parameter(
            "LABEL_FILE", "file", f"Or {what.lower()} that are no layer: .mat, .npy, .png, .csv", option, advanced=True
        ),
    )


_CLASSIFIER = Parameter("CLASSIFIER", "file", "Classifier", "model", needed=True, files="Classifiers (*.safetensors)")
_MAP = Parameter("MAP", "raster", "Map of classes", "map_file", needed=True)
_DEVICE = Parameter("DEVICE", "text", "Where to compute: auto, cpu, cuda, mps", "--device", "auto", advanced=True)
_RESUME = "Go on where a stopped run of the same parameters was"
_SMALLEST_AREA = Parameter("SMALLEST_AREA", "text", "Least area of a polygon, such as 0.5ha or 9px", "--smallest-area")
_MISSING_RANGE = Parameter(
    "ALLOW_MISSING_RANGE",
    "flag",
    "Take also scenes that do not measure in a range that the classifier uses",
    "--allow-missing-range",
    False,
    advanced=True,
)
_OPENING = (
    Parameter("KEEP", "choices", "Do not mask these pixels of a product", "--keep", advanced=True, choices=MASKED),
    Parameter("WATER_BANDS", "flag", "Use bands in which water vapour absorbs", "--water-bands", False, advanced=True),
    Parameter("FORMAT", "choice", "Format of the scene, if nothing tells", "--format", advanced=True, choices=FORMATS),
    Parameter("VARIABLE", "text", "Variable of the scene in its file", "--variable", advanced=True),
    Parameter(
        "BAND_AXIS", "whole number", "Axis of the bands in a cube", "--band-axis", advanced=True, least=0, most=2
    ),
)
_DRAWN = (
    Parameter("ALL_TOUCHED", "flag", "Polygons label every pixel they meet", "--all-touched", False, advanced=True),
    Parameter("SHRINK", "number", "Shrink polygons by so many pixels", "--shrink", 0.0, advanced=True, least=0),
    Parameter("POINT_RADIUS", "number", "Radius of points in pixels", "--point-radius", 0.0, advanced=True, least=0),
    Parameter(
        "CLASSES",
        "file",
        "Names and colours of the classes",
        "--classes",
        advanced=True,
        files="Class tables (*.csv *.qml)",
    ),
    Parameter("MERGE", "texts", "Classes that become one: wheat,barley=cereal; …", "--merge", advanced=True),
    Parameter("DROP", "texts", "Classes that are left out, with semicolons between", "--drop", advanced=True),
    Parameter("LABEL_LAYER", "text", "Layer of the labels in their file", "--layer", advanced=True),
    Parameter("LABEL_VARIABLE", "text", "Variable of the labels in their file", "--label-variable", advanced=True),
)
_TRAINING = (
    *_scene(),
    *_labels(),
    Parameter("SPLIT", "choice", "How labels are divided into training and test pixels", "--split", choices=SPLITS),
    Parameter("PER_CLASS", "whole number", "Training pixels of each class", "--per-class", least=1),
    Parameter("MODEL", "choice", "What classifies", "--model", choices=MODELS),
    Parameter("PATCH", "whole number", "Width of the neighbourhood in pixels, odd", "--patch", least=1),
    Parameter("STEPS", "whole number", "Training steps", "--steps", least=1),
    Parameter("SEED", "whole number", "Seed of split and training", "--seed", least=0),
    Parameter(
        "FRACTION",
        "number",
        "Instead of training pixels of each class, their share (random)",
        "--fraction",
        advanced=True,
        least=0,
        most=1,
    ),
    Parameter(
        "TRAIN_FRACTION",
        "number",
        "Share that trains (fields, blocks, regions, columns, rows)",
        "--train-fraction",
        advanced=True,
        least=0,
        most=1,
    ),
    Parameter(
        "BLOCK_SIZE", "whole number", "Width of a block in pixels (blocks)", "--block-size", advanced=True, least=1
    ),
    Parameter(
        "BOUNDARY",
        "whole number",
        "First column or row that tests (columns, rows)",
        "--boundary",
        advanced=True,
        least=0,
    ),
    Parameter(
        "BUFFER",
        "whole number",
        "Pixels left out between training and test areas",
        "--buffer",
        advanced=True,
        least=0,
    ),
    Parameter("TRAIN_MASK", "raster", "Where labels train (masks)", "--train-mask", advanced=True),
    Parameter("TEST_MASK", "raster", "Where labels test (masks)", "--test-mask", advanced=True),
    Parameter("PRESET", "text", "Preset of the network", "--preset", advanced=True),
    Parameter(
        "RARE_CLASSES",
        "choice",
        "What makes up for classes with few labels",
        "--rare-classes",
        advanced=True,
        choices=RARE_CLASSES,
    ),
    Parameter("SETTINGS", "file", "File of settings", "--settings", advanced=True, files="Settings (*.toml)"),
    Parameter("SET", "texts", "More settings: noise=0.3; model_options.piece=4", "--set", advanced=True),
    *_DRAWN,
    *_OPENING,
    _DEVICE,
    Parameter("OVERWRITE", "flag", "Delete earlier results in the folder", "--overwrite", False, advanced=True),
    Parameter("RESUME", "flag", _RESUME, "--resume", False, advanced=True),
    Parameter("OUT", "folder to write", "Folder for the results", "--out", needed=True),
)
_BESIDE = (
    Parameter(
        "OVERVIEW", "flag", "Also a picture with legend and a KMZ for Google Earth", "--overview", False, advanced=True
    ),
    Parameter("STAC", "flag", "Also a STAC item", "--stac", False, advanced=True),
    Parameter("ACQUIRED", "text", "When the scene was acquired, for the STAC item", "--acquired", advanced=True),
    Parameter("LAYERS", "flag", "Also load confidence, novelty and set size", default=False),
)

TRAIN = Algorithm(
    "train",
    "Train a classifier",
    "Trains a classifier on the labelled pixels of a scene and keeps it, with its split, settings and log, in a folder. "
    "What is left empty is chosen for the scene; the log says what and why. Polygons train or test as a whole, unless another "
    "split is chosen. A training that was stopped keeps a checkpoint in the folder.",
    _TRAINING,
)
RUN = Algorithm(
    "run",
    "Train, map and report",
    "Does it all in one folder: trains a classifier, scores it on test pixels, maps the scene and writes a report.",
    (
        *_TRAINING[:-1],
        Parameter("POLYGONS", "flag", "Also write the map's polygons", "--polygons", False),
        _SMALLEST_AREA,
        *_BESIDE,
        _TRAINING[-1],
    ),
)
MAP = Algorithm(
    "map",
    "Map a scene",
    "Classifies a whole scene with a trained classifier. Beside the map go its confidence, novelty and set size, its style, its "
    "attribute table and the areas of its classes. A scene of another sensor is resampled to the classifier's bands.",
    (
        _CLASSIFIER,
        *_scene("scenes"),
        *_BESIDE,
        Parameter("MEMORY", "text", "Memory that all of it may take, such as 2GB", "--memory", advanced=True),
        Parameter("WORKERS", "whole number", "Threads that compute", "--workers", advanced=True, least=1),
        Parameter("TILE", "whole number", "Rows and columns that are read at a time", "--tile", advanced=True, least=1),
        Parameter(
            "PRECISION",
            "choice",
            "Precision on a GPU",
            "--precision",
            "float32",
            advanced=True,
            choices=("float32", "float16"),
        ),
        _MISSING_RANGE,
        *_OPENING,
        _DEVICE,
        Parameter(
            "RESUME", "flag", f"{_RESUME}, and keep what is done if this is stopped", "--resume", False, advanced=True
        ),
        Parameter("OUT", "raster to write", "Map", "--out", needed=True),
        Parameter("POLYGONS", "polygons to write", "Polygons", "--polygons"),
        _SMALLEST_AREA,
    ),
    always=("--overwrite",),
)
EVALUATE = Algorithm(
    "evaluate",
    "Score a classifier",
    "Scores a classifier on labels: overall and average accuracy, kappa, and each class. If the classifier's folder holds its "
    "split, only test pixels of it count.",
    (
        _CLASSIFIER,
        *_scene(),
        *_labels(),
        Parameter("ALL", "flag", "Score on all labels, not only on the test pixels", "--all", False),
        _MISSING_RANGE,
        *_DRAWN,
        *_OPENING,
        _DEVICE,
        Parameter("OUT", "file to write", "Scores", "--out", needed=True, files="JSON files (*.json)"),
    ),
)
AREAS = Algorithm(
    "areas",
    "Estimate class areas and accuracies",
    "Estimates how large the classes of a map are, and its accuracies, each with a confidence interval, from a reference sample "
    "that was drawn at random within each mapped class (Olofsson et al. 2014).",
    (
        _MAP,
        *_labels("reference", "Reference"),
        *_DRAWN,
        Parameter(
            "OUT", "file to write", "Areas", "--out", needed=True, files="CSV files (*.csv);;JSON files (*.json)"
        ),
    ),
)
RESAMPLE = Algorithm(
    "resample",
    "Resample a scene to other bands",
    "Writes a scene in the bands of a sensor, of a classifier or of another scene.",
    (
        *_scene(),
        Parameter("SENSOR", "choice", "Sensor whose bands are taken", "--like", choices=SENSORS),
        Parameter("LIKE", "file", "Or a classifier or scene whose bands are taken", "--like"),
        _MISSING_RANGE,
        *_OPENING,
        Parameter("OUT", "raster to write", "Resampled scene", "--out", needed=True),
    ),
    always=("--overwrite",),
)
POLYGONS = Algorithm(
    "polygons",
    "Map to polygons",
    "Writes a map as polygons with class, area and mean confidence, coloured by class.",
    (_MAP, _SMALLEST_AREA, Parameter("OUT", "polygons to write", "Polygons", "--out", needed=True)),
    always=("--overwrite",),
)
REPORT = Algorithm(
    "report",
    "Open a report",
    "Writes the report of a run again, from what its folder holds, and opens it in the browser.",
    (
        Parameter("FOLDER", "folder", "Folder of a run", "folder", needed=True),
        Parameter("OPEN", "flag", "Open it in the browser", default=True),
    ),
)

ALGORITHMS = (RUN, TRAIN, MAP, EVALUATE, AREAS, RESAMPLE, POLYGONS, REPORT)
