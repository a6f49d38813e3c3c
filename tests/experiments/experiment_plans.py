"""Tiny plans of simulated scenes, of which a run takes a fraction of a second."""

from __future__ import annotations

from pathlib import Path

from spectralmamba.experiments.plan import Plan, load_plan

SMALL = """
title = "Small"
seeds = [0, 1]

[settings]
steps = 4
batch_size = 8
self_training_rounds = 0
companion = "none"
set_coverage = 0

[[data]]
name = "fields"
simulated = { rows = 24, columns = 24, bands = 20, classes = 3, seed = 1 }

[[split]]
method = "random"
per_class = 5

[[model]]
name = "ours"
model = "spectral_mamba"
patch = 3
model_options = { width = 8, states = 2 }

[[model]]
model = "mlp"
patch = 1
model_options = { width = 8 }

[[model]]
model = "svm"
features = "pixels"
"""


def write_plan(folder: Path, text: str = SMALL, name: str = "plan.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def small_plan(folder: Path, text: str = SMALL) -> Plan:
    return load_plan(write_plan(folder, text))


def changed(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)
