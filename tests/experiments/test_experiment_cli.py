from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiment_plans import changed, write_plan

from cli_example import assert_refused, command_line, start_program


def accuracy_table(out: Path) -> str:
    return (out / "table.md").read_text("utf-8").partition("## Cost")[0]


def test_list_runs_nothing(tmp_path):
    answer = command_line("experiment", write_plan(tmp_path), "--out", tmp_path / "out", "--list")
    assert answer.code == 0, answer
    assert "fields / random, 5 a class / ours: seed 0, 1 to run" in answer.out
    assert "6 runs to make of 6." in answer.out
    assert not (tmp_path / "out").exists()


def test_only_and_seeds_choose_runs(tmp_path):
    plan = write_plan(tmp_path)
    words = ("experiment", plan, "--out", tmp_path / "out", "--seeds", "3", "--device", "cpu")
    answer = command_line(*words, "--only", "*/mlp*")
    assert answer.code == 0, answer
    assert "1 runs to make of 3." in answer.out
    assert "1/1 fields / random, 5 a class / mlp, pixelwise, width = 8 / seed 3: OA" in answer.out
    assert "not run" in accuracy_table(tmp_path / "out")
    answer = command_line(*words, "--list")
    assert "mlp, pixelwise, width = 8: seed 3 done" in answer.out


def test_a_failed_run_is_named_and_leaves_with_1(tmp_path):
    plan = write_plan(tmp_path, changed("width = 8, states = 2", "piece = 99"))
    answer = command_line("experiment", plan, "--out", tmp_path / "out", "--seeds", "0", "--device", "cpu")
    assert answer.code == 1, answer
    assert "Failed: fields / random, 5 a class / ours / seed 0: ModelError" in answer.err
    assert "failed: ModelError" in accuracy_table(tmp_path / "out")
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seeds", "0,x"), ("the seeds cannot be used",)),
        (("--only", "feilds*"), ("no run of the plan", "Did you mean 'fields'?")),
    ],
)
def test_wrong_options_are_refused(tmp_path, words, said):
    answer = command_line("experiment", write_plan(tmp_path), "--out", tmp_path / "out", *words)
    assert_refused(answer, *said, out=tmp_path / "out")


def test_a_wrong_plan_is_refused(tmp_path):
    plan = write_plan(tmp_path, changed('model = "mlp"', 'model = "mlpp"'))
    assert_refused(command_line("experiment", plan, "--out", tmp_path / "out"), "plan.toml", "Did you mean 'mlp'?")


def test_tuning_without_optuna_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = command_line(
        "experiment", write_plan(tmp_path), "--out", tmp_path / "out", "--tune", "2", "--device", "cpu"
    )
    assert_refused(answer, "optuna", 'pip install "spectralmamba[experiments]"', out=tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="no signals to kill with")
def test_killed_and_started_again_it_makes_the_same_table(tmp_path):
    plan = write_plan(tmp_path)
    words = ("experiment", plan, "--device", "cpu", "--out")
    killed = start_program(*words, tmp_path / "killed", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = tmp_path / "killed" / "runs.jsonl"
    wait_for(lambda: lines.is_file() and lines.read_bytes().count(b"\n") >= 2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    made = lines.read_bytes().count(b"\n")
    assert 2 <= made < 6
    assert command_line(*words, tmp_path / "whole").code == 0
    again = start_program(*words, tmp_path / "killed")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert f"{6 - made} runs to make of 6." in out
    assert accuracy_table(tmp_path / "killed") == accuracy_table(tmp_path / "whole")


@pytest.mark.skipif(os.name == "nt", reason="no locks there")
def test_a_second_process_is_refused(tmp_path):
    from spectralmamba.experiments.folder import ResultFolder

    with ResultFolder(tmp_path / "out").alone():
        answer = command_line("experiment", write_plan(tmp_path), "--out", tmp_path / "out")
    assert answer.code == 2
    assert "another process is running an experiment in this folder" in answer.err


def wait_for(true) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)
