# Everything runs in .venv of this folder; `make setup` builds it when it is missing or when its list of packages changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: setup demo test lint test-gpu test-qgis qgis-plugin test-qgis-plugin fuzz bench bench-speed bench-scale bench-products docs docs-site web dist test-dist clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt setup.py $(wildcard src/spectralmamba/ops/*/native.c)
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name it with make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/spectralmamba simulate --out demo --overwrite
	$(BIN)/spectralmamba run demo/scene.tif demo/labels.tif --split regions --per-class 30 --out demo/result --overwrite
	@echo "Open demo/result/report.html in a browser, demo/result/map.tif in a GIS."

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/pytest

test-gpu: $(READY)
	$(BIN)/pytest -m gpu tests/test_gpu.py

# Needs QGIS with its Python, on Debian the package python3-qgis.
test-qgis: $(READY)
	$(BIN)/spectralmamba simulate --out qgis-check --overwrite
	$(BIN)/spectralmamba run qgis-check/scene.tif qgis-check/labels.tif --split regions --per-class 30 --model support_vectors --polygons --out qgis-check/result --overwrite
	QT_QPA_PLATFORM=offscreen /usr/bin/python3 tests/qgis_check.py qgis-check/result

qgis-plugin:
	$(PYTHON) qgis/build.py

# Needs QGIS, as test-qgis does. It keeps its settings in a folder of its own.
test-qgis-plugin: $(READY)
	$(BIN)/spectralmamba simulate --out qgis-plugin-check --overwrite
	QT_QPA_PLATFORM=offscreen /usr/bin/python3 tests/qgis_plugin_check.py $(BIN)/spectralmamba qgis-plugin-check

fuzz: $(READY)
	SPECTRALMAMBA_FUZZ_CASES=100000 $(BIN)/pytest --timeout 3600 tests/products/test_fuzz_headers.py

bench: $(READY)
	$(BIN)/python benchmarks/few_labels.py
	$(BIN)/python benchmarks/suggest.py --write-docs
	$(BIN)/python benchmarks/unknown_class.py --write-docs
	$(BIN)/python benchmarks/gates.py --write-docs

bench-speed: $(READY)
	$(BIN)/python benchmarks/scan.py --write-docs
	$(BIN)/python benchmarks/training.py --write-docs
	$(BIN)/python benchmarks/mapping.py --write-docs
	$(BIN)/python benchmarks/map_files.py --sizes 100,317,1000,3163 --rows 1024 --write-docs
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then $(BIN)/python benchmarks/training_gpu.py --write-docs; fi

bench-scale: $(READY)
	$(BIN)/python benchmarks/scale.py --write-docs

# Makes whole products of 3 GB for a while. benchmarks/readers.py is run by hand: it needs the Pythons of other readers.
bench-products: $(READY)
	$(BIN)/python benchmarks/products.py --write-docs

docs: $(READY)
	$(BIN)/pytest tests/test_tutorial.py

# The pages in docs/ as a site, site/index.html, which opens from the disk; every warning is an error.
docs-site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Python's standard library is enough: the page that maps scenes in a browser, dist/spectralmamba.html.
web:
	$(PYTHON) web/build.py

# Source archive, wheel, and what the environment here is made of (CycloneDX).
dist: $(READY)
	$(BIN)/python -m build --outdir dist .
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-file dist/spectralmamba.cdx.json

# Installs the wheel into clean environments, with the newest and with the oldest versions that it allows, and uses it there.
test-dist: dist
	$(BIN)/python tests/wheel_check.py dist

clean:
	rm -rf $(VENV) demo qgis-check qgis-plugin-check site build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
