from __future__ import annotations

import math
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spectralmamba.errors import OutputError, SettingsError
from spectralmamba.settings import Settings

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # a lone surrogate is not text
AMPLITUDE = st.floats(0, 1e300)
OPTION = TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
RARE_CLASSES = ["as drawn", "balanced batches", "balanced loss", "logit adjustment", "prior correction"]
ANY_SETTINGS = st.builds(
    Settings,
    model=TEXT,
    preset=TEXT,
    patch=st.integers(0, 50).map(lambda half: 2 * half + 1),
    model_options=st.dictionaries(TEXT, OPTION, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    normalisation=st.sampled_from(["standard", "whitening"]),
    whitening_epsilon=st.floats(1e-9, 1e9),
    statistics_from=st.sampled_from(["training side", "scene", "training pixels"]),
    steps=st.integers(1, 2**40),
    batch_size=st.integers(1, 2**40),
    learning_rate=st.floats(0, 1e300, exclude_min=True),
    weight_decay=AMPLITUDE,
    label_smoothing=st.floats(0, 0.99),
    rare_classes=st.sampled_from(RARE_CLASSES),
    turns_and_flips=st.booleans(),
    brightness=st.floats(0, 1),
    offset=AMPLITUDE,
    noise=AMPLITUDE,
    neighbour_difference=AMPLITUDE,
    band_dropout=st.floats(0, 0.99),
    band_block=st.integers(1, 2**40),
    mixup=AMPLITUDE,
    class_difference=AMPLITUDE,
    self_training_rounds=st.integers(0, 100),
    teacher_patch=st.integers(0, 50).map(lambda half: 2 * half + 1),
    pseudo_labels=st.integers(1, 2**40),
    pseudo_confidence=st.floats(0, 1),
    set_coverage=st.floats(0, 0.999),
)


@given(ANY_SETTINGS)
@hypothesis_settings(max_examples=60, deadline=None)
def test_settings_come_back_from_toml_as_they_were(settings: Settings):
    assert Settings.from_dict(tomllib.loads(settings.to_toml())) == settings


def test_every_setting_is_in_the_file_and_explained(tmp_path: Path):
    settings = Settings(steps=7, model_options={"piece": 4})
    settings.save(tmp_path / "settings.toml")
    assert Settings.load(tmp_path / "settings.toml") == settings
    content = tomllib.loads((tmp_path / "settings.toml").read_text(encoding="utf-8"))
    assert set(content) == {entry.name for entry in fields(Settings)}


def test_what_is_left_out_keeps_its_default(tmp_path: Path):
    (tmp_path / "settings.toml").write_text("steps = 5\nlearning_rate = 1\n")
    settings = Settings.load(tmp_path / "settings.toml")
    assert settings == Settings(steps=5, learning_rate=1.0)
    assert isinstance(settings.learning_rate, float)


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path: Path):
    (tmp_path / "settings.toml").write_text("lerning_rate = 0.1\n")
    with pytest.raises(SettingsError, match="Did you mean 'learning_rate'") as refused:
        Settings.load(tmp_path / "settings.toml")
    assert refused.value.file == tmp_path / "settings.toml"
    with pytest.raises(SettingsError, match="Known are"):
        Settings().replace(xyzzy=1)


WRONG_TYPES = [
    ("steps", 1.5),
    ("steps", True),
    ("steps", "many"),
    ("patch", 3.0),
    ("noise", "loud"),
    ("noise", False),
    ("rare_classes", True),
    ("model", 3),
    ("model_options", [1]),
]


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused_with_the_name_of_the_setting(name: str, value: Any):
    with pytest.raises(SettingsError, match=f"'{name}' has the wrong type"):
        Settings(**{name: value})


OUT_OF_RANGE = [
    ("patch", 4),
    ("patch", 0),
    ("patch", -1),
    ("teacher_patch", 2),
    ("teacher_patch", 0),
    ("seed", -1),
    ("seed", 2**32),
    ("steps", 0),
    ("batch_size", 0),
    ("learning_rate", 0.0),
    ("learning_rate", -1.0),
    ("whitening_epsilon", 0.0),
    ("label_smoothing", 1.0),
    ("brightness", 1.5),
    ("band_dropout", 1.0),
    ("band_block", 0),
    ("mixup", -0.1),
    ("self_training_rounds", -1),
    ("self_training_rounds", 101),
    ("pseudo_labels", 0),
    ("pseudo_confidence", -0.1),
    ("pseudo_confidence", 1.1),
    ("normalisation", "none"),
    ("statistics_from", "test pixels"),
    ("rare_classes", "balanced"),
    ("rare_classes", ""),
    ("model_options", {"piece": None}),
    ("model_options", {"piece": [1]}),
    ("model_options", {"dropout": math.nan}),
    *((name, value) for name in ("learning_rate", "noise", "offset", "mixup") for value in (math.nan, math.inf)),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused(name: str, value: Any):
    with pytest.raises(SettingsError):
        Settings(**{name: value})


@pytest.mark.parametrize("text", ["steps = 0", "steps = 'many'", "patch = 2", "noise = nan", "noise = inf"])
def test_a_wrong_setting_in_a_file_is_refused_with_the_name_of_the_file(tmp_path: Path, text: str):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        Settings.load(path)
    assert refused.value.file == path
    assert "expected" in str(refused.value)


@pytest.mark.parametrize("content", [b"steps = ", b"\xff\xfe", b"[[", b"{}"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "settings.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"settings\.toml"):
        Settings.load(tmp_path / "settings.toml")


def test_a_missing_file_or_folder_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot read"):
        Settings.load(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot read"):
        Settings.load(tmp_path)
    with pytest.raises(OutputError):
        Settings().save(tmp_path / "none" / "settings.toml")


def test_changed_settings_leave_the_first_alone():
    first = Settings(model_options={"piece": 4})
    second = first.replace(patch=5)
    second.model_options["piece"] = 9
    assert (first.patch, first.model_options["piece"]) == (7, 4)
