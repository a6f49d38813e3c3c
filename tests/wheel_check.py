"""Not a test of pytest: installs the wheel into clean environments and goes through first steps there (`make test-dist`).

With the newest versions that its metadata allow, and with the oldest of what it asks for by itself. Needs the package index,
and some gigabytes for torch's builds with CUDA.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 1_000_000  # bytes of a wheel
STEPS = (
    "--version",
    "simulate --out simulated",
    "info simulated/scene.tif simulated/labels.tif",
    "run simulated/scene.tif fields.gpkg --label-column crop --shrink 0.5 --steps 30 --out result",
    "map result/model.safetensors simulated/scene.tif --out again.tif",
    "evaluate result/model.safetensors simulated/scene.tif fields.gpkg --label-column crop",
)
FIELDS = """
import geopandas, rasterio
from rasterio.features import shapes
from shapely.geometry import shape
with rasterio.open("simulated/labels.tif") as raster:
    ids, transform, crs = raster.read(1), raster.transform, raster.crs
found = [(shape(outline), f"crop {int(id_)}") for outline, id_ in shapes(ids, mask=ids > 0, transform=transform)]
geometry, crops = zip(*found)
geopandas.GeoDataFrame({"crop": crops}, geometry=list(geometry), crs=crs).to_file("fields.gpkg")
"""


def main() -> None:
    """Check each kind of environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheel lies")
    parser.add_argument("--versions", choices=("newest", "oldest"), action="append")
    arguments = parser.parse_args()
    (wheel,) = arguments.folder.resolve().glob("spectralmamba-*.whl")
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e3:.0f} kB")
    if size >= LARGEST:
        sys.exit(f"the wheel is larger than {LARGEST / 1e3:.0f} kB")
    for versions in arguments.versions or ("newest", "oldest"):
        with tempfile.TemporaryDirectory() as folder:
            check(wheel, versions, Path(folder))


def check(wheel: Path, versions: str, folder: Path) -> None:
    """Install the wheel with polygons' extra, and go through the steps."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["vector"]]
    python = folder / "environment" / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    call(uv, "venv", "--quiet", "--python", sys.executable, folder / "environment")
    resolution = {"newest": "highest", "oldest": "lowest-direct"}[versions]
    call(uv, "pip", "install", "--quiet", "--python", python, "--resolution", resolution, *wanted, wheel)
    call(
        python,
        "-c",
        "import torch, numpy, rasterio, xarray as x; print(*(m.__version__ for m in (torch, numpy, rasterio, x)))",
    )
    for step in STEPS:
        if "fields.gpkg" in step and not (folder / "fields.gpkg").is_file():
            call(python, "-c", FIELDS, folder=folder)
        print(f"{versions}: spectralmamba {step}", flush=True)
        call(python.with_name("spectralmamba"), *step.split(), folder=folder)


def call(*words: object, folder: Path | None = None) -> None:
    """Run a command; leave with what it left with."""
    done = subprocess.run([str(word) for word in words], cwd=folder, check=False)
    if done.returncode:
        sys.exit(f"{words[0]} left with {done.returncode}")


if __name__ == "__main__":
    main()
