"""A trained classifier: network, input transform and card, kept in one safetensors file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spectralmamba import inference
from spectralmamba.errors import ClassifierError, ModelError, SettingsError, SpectralMambaError
from spectralmamba.inference import Precision, Tile
from spectralmamba.models import create_model
from spectralmamba.models.committee import COMPANIONS, SIMPLE_MODELS, Committee, LabelPropagation, build_companion
from spectralmamba.models.novelty import NoveltyScore
from spectralmamba.models.prediction_sets import PredictionSets
from spectralmamba.pixels import Pixels
from spectralmamba.scenes.class_rasters import HIGHEST_ID
from spectralmamba.scenes.palette import rgb
from spectralmamba.scenes.resampling import apply_resampling, find_resampling
from spectralmamba.scenes.sensors import SpectralBands
from spectralmamba.scenes.statistics import sample_windows
from spectralmamba.tensor_files import (
    pack_tensors,
    read_tensors,
    under_prefix,
    unpack_tensors,
    with_prefix,
    write_tensors,
)
from spectralmamba.tiling import choose_tile
from spectralmamba.transforms import InputTransform

FORMAT = "spectralmamba-classifier/1"
# Wavelengths of a scene may differ from the training scene's by this much: products print them to 0.01 nm or so, and
# calibrations of one sensor drift by tenths of a nanometre.
WAVELENGTH_TOLERANCE_NM = 1.0
# Mean values of two scenes that differ by this factor are of other units: dark water and snow differ by less.
_OTHER_UNITS = 30
_UNITS_SAMPLE = 1 << 20  # values that are looked at for that
_SMALL = 1 << 20  # elements that a tensor may have in any case
_CARD_KEYS = ("format", "classes", "bands", "normalisation", "settings", "split", "scores", "versions", "data", "model")


@dataclass
class Classifier:
    """What `fit` returns: it tells the class of each pixel of a scene.

    Attributes:
        network: Maps normalised spectra or patches to logits; a `Committee` where something else decides, too.
        transform: Normalises spectra.
        card: What is known of it: classes, bands, normalisation, settings, split, scores, versions, data, model.
        novelty: Tells how unlike all classes a pixel is; None in files of older versions.
        sets: Tells which classes a pixel may have; None if no sets were wanted, or no training pixel could be left out.
    """

    network: nn.Module
    transform: InputTransform
    card: dict[str, Any]
    novelty: NoveltyScore | None = None
    sets: PredictionSets | None = None

    @property
    def classes(self) -> np.ndarray:
        """Class ids `(K,)`, ascending, in the order of the logits."""
        return np.array([entry["id"] for entry in self.card["classes"]])

    @property
    def class_names(self) -> dict[int, str]:
        """Name of each class, by its id."""
        return {entry["id"]: entry["name"] for entry in self.card["classes"]}

    @property
    def class_colors(self) -> dict[int, str]:
        """Colour of each class, "#rrggbb", by its id."""
        return {entry["id"]: entry["color"] for entry in self.card["classes"]}

    @property
    def patch(self) -> int:
        """P, the width of the neighbourhood."""
        return self.card["model"]["patch"]

    @property
    def bands(self) -> np.ndarray:
        """Positions of the bands it uses, counted from 0."""
        return np.array(self.card["bands"]["used"]) - 1

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.transform.mean.device

    @property
    def _parts(self) -> dict[str, nn.Module]:
        """What its tensors belong to, by the beginning of their names in its file."""
        parts: dict[str, nn.Module] = {"network.": self.network, "transform.": self.transform}
        beside = {"novelty.": self.novelty, "sets.": self.sets}
        return parts | {prefix: module for prefix, module in beside.items() if module is not None}

    @property
    def _tensors(self) -> dict[str, Tensor]:
        """Its tensors, by their names in its file."""
        tensors: dict[str, Tensor] = {}
        for prefix, module in self._parts.items():
            tensors |= with_prefix(prefix, module.state_dict())
        return tensors

    def to(self, device: torch.device | str) -> Classifier:
        """Move it to a device and return it."""
        for module in self._parts.values():
            module.to(device)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier to one safetensors file, atomically; the card is JSON in its header."""
        write_tensors(path, self._tensors, "card", self.card)

    def to_bytes(self) -> bytes:
        """Return what `save` writes."""
        return pack_tensors(self._tensors, "card", self.card)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "auto") -> Classifier:
        """Read a classifier and check all of it.

        Args:
            path: A file that `save` wrote.
            device: "auto" (a GPU if there is one), or torch's name of a device.

        Raises:
            ClassifierError: The file is missing, damaged, not a classifier, or its parts do not fit each other.
        """
        return cls._of(*_read(path), path, device)

    @classmethod
    def from_bytes(cls, content: bytes, device: str = "auto") -> Classifier:
        """Read a classifier from what `to_bytes` gave, and check all of it, as `load` does.

        Raises:
            ClassifierError: The bytes are cut off, not a classifier's, or its parts do not fit each other.
        """
        try:
            text, tensors = unpack_tensors(content, "card")
        except (SafetensorError, ValueError) as error:
            raise ClassifierError(
                "these are not the bytes of a whole safetensors file", found=f"{len(content)} bytes; {error}"
            ) from error
        return cls._of(parse_card(text, None), tensors, None, device)

    @classmethod
    def _of(
        cls, card: dict[str, Any], tensors: dict[str, Tensor], path: str | os.PathLike[str] | None, device: str
    ) -> Classifier:
        """Build a classifier from card and tensors, and check that they fit."""
        try:
            check_card(card)
            bands, classes = len(card["bands"]["used"]), len(card["classes"])
            # The weights that it begins with are drawn, and replaced; on torch's device "meta", which draws none, this would take
            # 80 MB and a second for imports.
            with (
                torch.random.fork_rng(devices=[]),
                _NoLargerThan(max((t.numel() for t in tensors.values()), default=0)),
            ):
                network = build_network(card["model"], bands, classes)
                transform, novelty = InputTransform(bands), NoveltyScore(bands, classes)
                sets = _build_sets(card, network)
        except (SpectralMambaError, KeyError, TypeError, ValueError) as error:
            raise ClassifierError("the card does not describe a classifier", file=path, found=error) from error
        parts: dict[str, nn.Module] = {"network.": network, "transform.": transform}
        if has_novelty := any(name.startswith("novelty.") for name in tensors):
            parts["novelty."] = novelty
        if sets is not None:
            parts["sets."] = sets
        strangers = [name for name in tensors if not name.startswith(tuple(parts))]
        if strangers:
            raise ClassifierError("the file holds tensors of something else", file=path, found=", ".join(strangers))
        for prefix, module in parts.items():
            part = under_prefix(prefix, tensors)
            _check_tensors(path, prefix, module, part)
            module.load_state_dict(part, assign=True)
        return cls(network.eval(), transform, card, novelty if has_novelty else None, sets).to(find_device(device))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool = False,
        endpoint: str | None = None,
        revision: str | None = None,
        license: str | None = None,
    ) -> str:
        """Upload the classifier and its model card to a model repository; see `sharing.hub.push`."""
        from spectralmamba.sharing.hub import push

        return push(self, repo_id, token=token, private=private, endpoint=endpoint, revision=revision, license=license)

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        device: str = "auto",
    ) -> Classifier:
        """Download a classifier from a model repository and check all of it; see `sharing.hub.pull` and `load`."""
        from spectralmamba.sharing.hub import pull

        file = pull(repo_id, revision=revision, token=token, endpoint=endpoint, cache_dir=cache_dir)
        return cls.load(file, device)

    def predict(self, scene: xr.DataArray, *, allow_missing_range: bool = False) -> xr.DataArray:
        """Return the class id of each pixel, `(y, x)` uint16 with 0 for nodata, on the scene's grid.

        Of a scene that Dask holds (`scene.chunks` is not None) this, like probabilities and sets, is lazy: chunks are computed when
        they are asked for, to the same bits.

        Args:
            scene: `(band, y, x)`, as `adapt_scene` takes it.
            allow_missing_range: As `adapt_scene` has it.

        Raises:
            ClassifierError: As `adapt_scene` has it.
        """
        result = self._of_whole(self.adapt_scene(scene, allow_missing_range=allow_missing_range), "ids", np.uint16, 0)
        attrs = {"class_names": self.class_names, "class_colors": self.class_colors}
        return xr.DataArray(result, dims=("y", "x"), coords=_grid_coordinates(scene), attrs=attrs, name="class")

    def predict_proba(self, scene: xr.DataArray, *, allow_missing_range: bool = False) -> xr.DataArray:
        """Return class probabilities, `(class, y, x)` float32 with NaN for nodata, on the scene's grid.

        Args:
            scene: `(band, y, x)`, as `adapt_scene` takes it.
            allow_missing_range: As `adapt_scene` has it.

        Raises:
            ClassifierError: As `adapt_scene` has it.
        """
        scene = self.adapt_scene(scene, allow_missing_range=allow_missing_range)
        result = self._of_whole(scene, "probabilities", np.float32, np.nan, of_classes=True)
        coordinates = _grid_coordinates(scene) | {"class": self.classes}
        return xr.DataArray(result, dims=("class", "y", "x"), coords=coordinates, name="probability")

    def predict_sets(self, scene: xr.DataArray, *, allow_missing_range: bool = False) -> xr.DataArray:
        """Return which classes each pixel may have, bool `(class, y, x)` with none at nodata, on the scene's grid.

        Args:
            scene: `(band, y, x)`, as `adapt_scene` takes it.
            allow_missing_range: As `adapt_scene` has it.

        Raises:
            ClassifierError: The classifier has no prediction sets, or as `adapt_scene` has it.
        """
        if self.sets is None:
            raise ClassifierError(
                "the classifier has no prediction sets",
                remedy="Train with set_coverage above 0 and a class of at least 2 labels in different places.",
            )
        scene = self.adapt_scene(scene, allow_missing_range=allow_missing_range)
        result = self._of_whole(scene, "sets", bool, False, of_classes=True)
        coordinates = _grid_coordinates(scene) | {"class": self.classes}
        return xr.DataArray(result, dims=("class", "y", "x"), coords=coordinates, name="prediction set")

    def _of_whole(self, scene: xr.DataArray, name: str, dtype: type, nodata: float, of_classes: bool = False) -> Any:
        """Return what tiles have under a name, of the whole of a scene in the classifier's bands: `(H, W)`, or `(K, H, W)`."""
        if scene.chunks is not None:
            from spectralmamba.cluster import lazily

            return lazily(self, scene, name, dtype, of_classes)
        result = np.full((*(len(self.classes),) * of_classes, *scene.shape[1:]), nodata, dtype)
        for tile in self.tiles(scene):
            result[..., tile.rows, tile.columns] = getattr(tile, name)
        return result

    def tiles(
        self,
        scene: xr.DataArray,
        size: int | tuple[int, int] | None = None,
        batch_size: int | None = None,
        where: np.ndarray | None = None,
        workers: int | None = None,
        skip: Callable[[slice, slice], bool] | None = None,
        precision: Precision = "float32",
        allow_missing_range: bool = False,
    ) -> Iterator[Tile]:
        """Classify a scene tile by tile; the next one is read while one is computed.

        What it says of a pixel depends on nothing but the pixel's patch and the device: to the last bit not on the size of the
        tiles nor the number of workers.

        Args:
            scene: `(band, y, x)`, as `adapt_scene` takes it.
            size: Rows and columns of a tile, read at a time with a halo of the patch's reach; rounded up to whole blocks of 64
                on a CPU and 256 on a GPU. None follows the blocks of the scene's file.
            batch_size: Pixels the network takes at a time; None chooses for the device.
            where: Which pixels to classify, bool `(y, x)`; the others are left as nodata is, and tiles of none are passed over.
            workers: Threads that compute on a CPU; as many as torch has if None.
            skip: Tells by its rows and columns whether a tile is not wanted.
            precision: Of matrix products in the network, on a GPU: "float16" is faster and changes a label in some thousands.
            allow_missing_range: As `adapt_scene` has it.

        Raises:
            ClassifierError: As `adapt_scene` has it.
            SettingsError: The device does not have the precision.
        """
        scene = self.adapt_scene(scene, allow_missing_range=allow_missing_range)
        if size is None:
            size = choose_tile(self, scene, workers=workers)
        size = (size, size) if isinstance(size, int) else size
        yield from inference.tiles(self, scene, size, batch_size, where, workers, skip, precision)

    def fingerprint(self) -> str:
        """Return a text that two classifiers have in common only if they say the same of every scene."""
        digest = hashlib.sha256(json.dumps(self.card, sort_keys=True).encode())
        for prefix, module in self._parts.items():
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{prefix}{name}{tuple(tensor.shape)}".encode())
                digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()

    def probabilities(self, pixels: Pixels, positions: Tensor, batch_size: int = 2048) -> Tensor:
        """Return class probabilities `(m, K)` of the pixels at `positions` `(m,)`; `pixels` holds spectra as the scene has them."""
        self.network.eval()
        normalised = pixels.with_values(self.transform(pixels.values))
        return inference.look_at(self, normalised, positions, batch_size).probabilities

    def logits(self, patches: np.ndarray) -> np.ndarray:
        """Return the logits `(n, K)`, float32, of patches that need not lie in a scene.

        What it says of a patch depends on nothing but the patch and the device: to the last bit not on those beside it.

        Args:
            patches: The bands that it uses, as the scene has them, `(n, P, P, L)`, or of single spectra `(n, L)`; all finite.
        """
        return inference.patch_logits(self, torch.from_numpy(np.array(patches, np.float32))).cpu().numpy()

    @property
    def spectral_bands(self) -> SpectralBands:
        """The bands of the scene that it was trained with; those that it uses are the good ones."""
        entry = self.card["bands"]
        wavelength, fwhm = (
            np.array([np.nan if value is None else value for value in entry[what]], np.float64)
            for what in ("wavelength", "fwhm")
        )
        good = np.zeros(entry["count"], bool)
        good[self.bands] = True
        return SpectralBands("the classifier", wavelength, fwhm, good, self.card["data"].get("file", ""))

    def adapt_scene(self, scene: xr.DataArray, *, allow_missing_range: bool = False) -> xr.DataArray:
        """Return a scene in the classifier's bands: itself if it has them, else resampled by wavelength and width, lazily.

        `attrs["resampled"]` then tells from what to what. A scene that Dask holds is not looked at for its units.

        Args:
            scene: `(band, y, x)`, with the bands of the training scene, or with wavelengths.
            allow_missing_range: Take a scene without good bands in a range that the classifier uses: its bands there become what
                the other bands and the training scene suggest, see `InputTransform.completion`.

        Raises:
            ClassifierError: The bands differ, and scene or classifier has no wavelengths; the scene lacks a range; or its values
                are of other units than those of the training scene.
            SceneError: The scene measures in no band of the classifier.
        """
        try:
            self.check_scene(scene)
        except ClassifierError:
            source, target = SpectralBands.of_scene(scene), self.spectral_bands
            known = np.isfinite(source.wavelength[source.good]).any()
            if not known or not np.isfinite(target.wavelength[target.good]).all():
                raise
        else:
            return scene
        resampling = find_resampling(source, target)
        missing = resampling.missing & target.good
        if (
            missing.any() and not missing[target.good].all()
        ):  # where all are, nothing can be filled: it is refused below
            if not allow_missing_range:
                raise ClassifierError(
                    "the scene does not measure in ranges that the classifier uses",
                    file=scene.attrs.get("source"),
                    found=f"no good band at {', '.join(resampling.ranges(target, missing))}",
                    expected="good bands there",
                    remedy="Take it all the same with --allow-missing-range (allow_missing_range=True): what is missing is filled "
                    "from the other bands.",
                )
            weights, offset = self.transform.completion(torch.from_numpy(missing[self.bands]))
            of_all = np.zeros((len(weights), len(missing)))
            of_all[:, self.bands] = weights.numpy()
            resampling = resampling.fill(missing, of_all, offset.numpy())
        adapted = apply_resampling(scene, target, resampling)
        if scene.chunks is None:
            self._check_units(adapted)
        return adapted

    def _check_units(self, scene: xr.DataArray) -> None:
        """Compare the size of some values of a scene in the classifier's bands with that of the training scene's.

        Raises:
            ClassifierError: They differ by more than ground and light can make them.
        """
        chunks = scene.encoding.get("preferred_chunks", {})
        block = int(chunks.get("y", 1)), int(chunks.get("x", scene.sizes["x"]))
        places, _ = sample_windows(scene.shape, block, _UNITS_SAMPLE)  # type: ignore[arg-type]
        parts = [scene.isel(band=self.bands, y=rows, x=columns).values.ravel() for rows, columns in places]
        found, expected = _mean_size(np.concatenate(parts)), _mean_size(self.transform.mean.cpu().numpy())
        if found and expected and not 1 / _OTHER_UNITS < found / expected < _OTHER_UNITS:
            raise ClassifierError(
                "the scene seems to have other units than the one that the classifier was trained with",
                file=scene.attrs.get("source"),
                found=f"values of about {found:.2g}",
                expected=f"about {expected:.2g}",
                remedy="Give both as reflectance from 0 to 1, by the scale in the ENVI header (reflectance scale factor) or the "
                "GeoTIFF; or train on this one.",
            )

    def check_scene(self, scene: xr.DataArray) -> None:
        """Check that a scene has the bands that the classifier was trained with.

        Raises:
            ClassifierError: Another number of bands, other wavelengths, or a band it needs is not good; names the difference.
        """
        bands, source = self.card["bands"], scene.attrs.get("source")
        if scene.sizes["band"] != bands["count"]:
            raise ClassifierError(
                "the scene has another number of bands than the classifier was trained with",
                file=source,
                found=scene.sizes["band"],
                expected=bands["count"],
                remedy="Use a scene of the same product, or train on this one. Scenes of other sensors need wavelengths.",
            )
        trained = np.array([np.nan if value is None else value for value in bands["wavelength"]])
        here = scene["wavelength"].values
        apart = np.abs(trained - here) > WAVELENGTH_TOLERANCE_NM
        if apart.any():
            first = int(np.argmax(apart))
            raise ClassifierError(
                f"{apart.sum()} bands lie at other wavelengths than the classifier's, the first is band {first + 1}",
                file=source,
                found=f"{here[first]:.2f} nm",
                expected=f"{trained[first]:.2f} nm within {WAVELENGTH_TOLERANCE_NM} nm",
                remedy="Bring it to the classifier's bands with `spectralmamba resample`, or train on this one.",
            )
        missing = [
            number for number in bands["used"] if NO_DATA in scene.attrs.get("bad_band_reasons", {}).get(number, "")
        ]
        if missing:
            raise ClassifierError(
                "bands that the classifier needs hold no data in this scene", file=source, found=f"bands {missing}"
            )


NO_DATA = "only nodata"


def _mean_size(values: np.ndarray) -> float:
    """Return the mean of what values are without their sign, 0 if none is finite."""
    finite = np.abs(values[np.isfinite(values)], dtype=np.float64)
    return float(finite.mean()) if finite.size else 0.0


def build_network(model: dict[str, Any], bands: int, classes: int) -> nn.Module:
    """Build the network that a card's `model` entry describes, and what decides beside it.

    Raises:
        ModelError: `create_model` does not know it, or an option is a setting of its own.
    """
    if model["name"] in SIMPLE_MODELS:
        with torch.device("cpu"):
            return build_companion(SIMPLE_MODELS[model["name"]], bands, classes, model["size"], model["patch"])
    settled = {"name": model["name"], "bands": bands, "classes": classes}
    settled |= {"patch": model["patch"], "preset": model["preset"]}
    for option in settled.keys() & model["options"].keys():
        raise ModelError(
            f"{option!r} is not an option of a network", remedy="Give it as a setting, not among the options."
        )
    with torch.device("cpu"):
        network, companion = create_model(**settled, **model["options"]), model.get("companion")
        if companion is None:
            return network
        beside = build_companion(companion["kind"], bands, classes, companion["size"], model["patch"])
        return Committee(network, beside)


def _build_sets(card: dict[str, Any], network: nn.Module) -> PredictionSets | None:
    """Build the prediction sets that a card describes; of the committee's label propagation, or of one of their own."""
    entry = card.get("prediction_sets")
    if entry is None:
        return None
    if not (0 < entry["coverage"] < 1 and 0 <= entry["threshold"] <= 1):
        raise ValueError("prediction sets of a coverage or threshold that is no share")
    if type(entry["labels"]) is not int or entry["labels"] < 1 or not isinstance(entry["left_out"], str):
        raise TypeError("prediction sets without a number of labels, or without how these were left out")
    size = entry["size"]
    if size is None:
        decides = network.companion if isinstance(network, Committee) else network
        if not isinstance(decides, LabelPropagation):
            raise ValueError("prediction sets without label propagation")
        return PredictionSets()
    _check_size(size)
    bands, classes = len(card["bands"]["used"]), len(card["classes"])
    return PredictionSets(LabelPropagation(bands, classes, size, card["model"]["patch"]))


class _NoLargerThan(TorchFunctionMode):
    """Refuses to make tensors larger than the largest of a file: a damaged card may ask for any size."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self._elements = elements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = 0
        if func in (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.arange):
            asked = math.prod(args[0] if isinstance(args[0], tuple | list) else args)
        elif func is torch.full:
            asked = math.prod(args[0])
        elif func is torch.eye:
            asked = args[0] ** 2
        elif func is Tensor.repeat:
            asked = args[0].numel() * math.prod(args[1:])
        if asked > max(self._elements, _SMALL):
            raise ValueError(
                f"a network with a tensor of {asked} elements, where the file's largest has {self._elements}"
            )
        return func(*args, **(kwargs or {}))


def _check_size(size: object) -> None:
    if type(size) is not int or not 1 <= size <= HIGHEST_ID:
        raise ValueError("a companion of an unknown kind or without spectra")


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU if torch finds one, else the CPU.

    Raises:
        SettingsError: torch has no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError("this device is not available", found=name, expected="auto, cpu or cuda") from error


def versions() -> dict[str, str]:
    """Return the versions of what results depend on."""
    packages = ("spectralmamba", "torch", "numpy", "scipy", "scikit-learn", "rasterio", "xarray")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def _grid_coordinates(scene: xr.DataArray) -> dict[str, xr.DataArray]:
    return {name: scene[name] for name in ("y", "x", "spatial_ref") if name in scene.coords}


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    file = Path(path)
    if not file.is_file():
        what = "this is a folder, not a classifier" if file.is_dir() else "there is no such file"
        raise ClassifierError(what, file=path, expected="a model.safetensors that training wrote")
    try:
        text, tensors = read_tensors(file, "card")
    except (SafetensorError, OSError, ValueError) as error:
        raise ClassifierError(
            "this is not a whole safetensors file",
            file=path,
            found=f"{file.stat().st_size} bytes; {error}",
            remedy="Copy the file again, or train again.",
        ) from error
    return parse_card(text, path), tensors


def parse_card(
    text: str | None, path: str | os.PathLike[str] | None, expected: str = f"a classifier ({FORMAT})"
) -> dict[str, Any]:
    """Return the card that a file holds as JSON; `check_card` looks at what is in it.

    Raises:
        ClassifierError: There is none, or it is another kind of card, or parts of it are missing.
    """
    if text is None:
        raise ClassifierError("the file has no card", file=path, expected=expected)
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClassifierError("the card is not JSON", file=path, found=error) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise ClassifierError("unknown kind of classifier", file=path, found=found, expected=FORMAT)
    missing = [key for key in _CARD_KEYS if key not in card]
    if missing:
        raise ClassifierError("the card is incomplete", file=path, found=f"no {', '.join(missing)}")
    return card


def check_card(card: dict[str, Any]) -> None:
    """Check what predicting and mapping take from a card.

    Raises:
        KeyError: Something is missing.
        TypeError: Something is of another kind.
        ValueError: Something cannot be.
    """
    ids, used, count = [entry["id"] for entry in card["classes"]], card["bands"]["used"], card["bands"]["count"]
    for what, numbers, most in (("class ids", ids, HIGHEST_ID), ("bands", used, count)):
        if not numbers or numbers != sorted(set(numbers)) or not 1 <= numbers[0] <= numbers[-1] <= most:
            raise ValueError(f"{what} that are not ascending numbers from 1 to {most}")
        if not all(type(number) is int for number in (*numbers, most)):
            raise TypeError(f"{what} that are not whole numbers")
    for entry in card["classes"]:
        rgb(entry["color"])
        if not isinstance(entry["name"], str):
            raise TypeError(f"class {entry['id']} without a name")
    for what in ("wavelength", "fwhm"):
        values = card["bands"][what]
        if len(values) != count or not all(value is None or isinstance(value, int | float) for value in values):
            raise ValueError(f"{what} that is no number for each of {count} bands")
    if type(card["model"]["patch"]) is not int or not isinstance(card["model"]["options"], dict):
        raise TypeError("a patch that is not a whole number, or options that are no table")
    if card["model"]["name"] in SIMPLE_MODELS:
        _check_size(card["model"]["size"])
    if (companion := card["model"].get("companion")) is not None:
        _check_size(companion["size"] if companion["kind"] in COMPANIONS else None)
    if (choice := card.get("choice")) is not None and not isinstance(choice["reason"], str):
        raise TypeError("a choice without a reason")
    if not isinstance(card["versions"]["spectralmamba"], str):
        raise TypeError("versions that are not text")


def _check_tensors(
    path: str | os.PathLike[str] | None, prefix: str, module: nn.Module, part: dict[str, Tensor]
) -> None:
    expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in part.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ClassifierError(
                f"the tensor {prefix}{name} does not fit the card",
                file=path,
                found=found.get(name, "none"),
                expected=expected.get(name, "none"),
            )
        if not torch.isfinite(part[name]).all():
            raise ClassifierError(f"the tensor {prefix}{name} holds NaN or infinity", file=path)
