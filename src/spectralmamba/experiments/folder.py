"""The folder of an experiment: a line for each run that has ended, and a folder with all that belongs to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spectralmamba.errors import OutputError
from spectralmamba.experiments.execute import Outcome
from spectralmamba.experiments.plan import Plan, Run
from spectralmamba.files import atomic_output, locked, write_json, write_text

LINES, LOCK, PLAN = "runs.jsonl", "lock", "plan.json"
_DIGITS = 12


def run_key(plan: Plan, run: Run, fingerprint: str, code: str) -> str:
    """Return the SHA-256 of all that a run's result follows from.

    That is: the data's fingerprint (SHA-256 of values, good bands, labels and standard split), the split's method and arguments,
    the model's settings or simple classifier, the tuning of networks, the seed, whether whole scenes are mapped, and the code's
    version. Names are not part of it.

    Args:
        plan: What the run is of.
        run: The run.
        fingerprint: Of the data.
        code: As `provenance.code_version` gives it.
    """
    tuning = None if run.model.simple is not None or not plan.tuning.trials else vars(plan.tuning)
    identity = {
        "data": fingerprint,
        "split": [run.split.method, run.split.arguments],
        "model": run.model.identity(),
        "tuning": tuning,
        "seed": run.seed,
        "maps": plan.maps,
        "code": code,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class ResultFolder:
    """What has been run so far.

    Attributes:
        path: The folder.
        lines: The last line of each run, by its key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, dict[str, Any]] = {}
        self._read()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the folder if need be, hold it for this process alone, and read what is there.

        Raises:
            OutputError: Another process holds it, or it cannot be written.
        """
        try:
            (self.path / "runs").mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("w")
        except OSError as error:
            raise OutputError(
                "cannot use this folder for results",
                file=self.path,
                found=error.strerror,
                remedy="Choose another one with --out.",
            ) from error
        with lock:
            if not locked(lock):
                raise OutputError(
                    "another process is running an experiment in this folder",
                    file=self.path,
                    remedy="Wait for it, or choose another --out.",
                )
            self._mend()
            self._read()
            yield

    def keep(self, key: str, outcome: Outcome, more: dict[str, Any]) -> dict[str, Any]:
        """Keep what came of a run: first its folder, then its line, which is on the disk when this returns.

        Args:
            key: The run's.
            outcome: What came of it.
            more: What the line says besides.

        Returns:
            The line.
        """
        run = outcome.run
        names = dict(zip(("data", "split_name", "model"), run.cell, strict=True))
        line = {"key": key, **names, "seed": run.seed, **more, **outcome.result}
        folder = self.folder_of(key)
        folder.mkdir(exist_ok=True)
        if outcome.settings is not None:
            write_text(folder / "settings.toml", outcome.settings)
        if outcome.trials is not None:
            write_json(folder / "trials.json", outcome.trials)
        if "split" in outcome.result:
            write_json(folder / "split.json", outcome.result["split"])
        if outcome.trace is not None:
            write_text(folder / "error.txt", outcome.trace)
        else:
            (folder / "error.txt").unlink(missing_ok=True)
        if outcome.classes is not None:
            with atomic_output(folder / "map.npy") as temporary:
                np.save(temporary, outcome.classes)
        write_json(folder / "result.json", line)
        self._append(line)
        self.lines[key] = line
        return line

    def folder_of(self, key: str) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / key[:_DIGITS]

    def differing_plan(self, plan: Plan) -> str | None:
        """Return a sentence on how the plan differs from the one that the folder was last used for; None if it does not."""
        kept = self.path / PLAN
        if not kept.is_file():
            return None
        before = json.loads(kept.read_text(encoding="utf-8"))
        now = _described(plan)
        if before == now:
            return None
        old, new = set(before["runs"]), set(now["runs"])
        about = f"was used for {before['title']!r} before" if before["title"] != now["title"] else "had another plan"
        return (
            f"This folder {about}: {len(new - old)} of the {len(new)} runs are new to it, and {len(old - new)} of its runs "
            "stay in it but are not in these tables."
        )

    def keep_plan(self, plan: Plan) -> None:
        """Note which plan the folder is used for."""
        write_json(self.path / PLAN, _described(plan))

    def _append(self, line: dict[str, Any]) -> None:
        try:
            with (self.path / LINES).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError("cannot add to this file", file=self.path / LINES, found=error.strerror) from error

    def _mend(self) -> None:
        """Cut off a last line that a kill left half-written."""
        path = self.path / LINES
        if path.is_file():
            content = path.read_bytes()
            if not content.endswith(b"\n"):
                with path.open("rb+") as file:
                    file.truncate(content.rfind(b"\n") + 1)

    def _read(self) -> None:
        path = self.path / LINES
        if not path.is_file():
            return
        *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, text in enumerate(lines, 1):
            try:
                line = json.loads(text)
                self.lines[line["key"]] = line
            except (ValueError, TypeError, KeyError) as error:
                raise OutputError(
                    "this line is no result of a run",
                    file=path,
                    found=f"line {number}: {text[:60]!r}",
                    remedy="Remove the line; its run is made again.",
                ) from error


def _described(plan: Plan) -> dict[str, Any]:
    return {"title": plan.title, "trials": plan.tuning.trials, "runs": [run.label for run in plan.runs]}
