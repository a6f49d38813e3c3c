"""All runs of a plan: what has to be done is done, in processes or seeds together, and kept as soon as it is there."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spectralmamba.classifier import find_device
from spectralmamba.errors import ClusterError, TrainingInterrupted
from spectralmamba.experiments.data import forget, load, why_not_here, why_not_split
from spectralmamba.experiments.execute import Order, Outcome, execute, failed
from spectralmamba.experiments.folder import ResultFolder, run_key
from spectralmamba.experiments.plan import Plan, Run
from spectralmamba.experiments.provenance import code_version, provenance
from spectralmamba.experiments.tuning import check_tuning

DONE, FAILED, NOT_AVAILABLE, MISSING = "done", "failed", "not available", "not run"


@dataclass(frozen=True)
class State:
    """How a run stands.

    Attributes:
        run: Which.
        status: "done", "failed", "not available" or "not run".
        reason: Of a failure or of data that are not here; empty otherwise.
        key: Of its result; None where the data are not here.
        line: Its result; None if there is none.
    """

    run: Run
    status: str
    reason: str = ""
    key: str | None = None
    line: dict[str, Any] | None = None


def survey(plan: Plan, folder: ResultFolder, root: Path | None) -> list[State]:
    """Tell how all runs of a plan stand, in their order. Data that are here are read, since results are of their values."""
    code = code_version()
    states: dict[tuple[str, str, str, int], State] = {}
    for name in dict.fromkeys(run.data.name for run in plan.runs):
        runs = [run for run in plan.runs if run.data.name == name]
        states |= {state.run.place: state for state in _survey(plan, runs, folder, root, code)}
    forget()
    return [states[run.place] for run in plan.runs]


def _survey(plan: Plan, runs: list[Run], folder: ResultFolder, root: Path | None, code: str) -> Iterator[State]:
    """Tell how the runs of one data set stand."""
    data = runs[0].data
    if reason := why_not_here(data, root):
        yield from (State(run, NOT_AVAILABLE, reason) for run in runs)
        return
    try:
        loaded = load(data, root)
        fingerprint = loaded.fingerprint()
    except Exception as error:  # whatever a file that is no scene makes a reader raise
        yield from (State(run, FAILED, f"{type(error).__name__}: {error}") for run in runs)
        return
    for run in runs:
        if reason := why_not_split(data, run.split, loaded):
            yield State(run, NOT_AVAILABLE, reason)
        else:
            yield state_of(run, run_key(plan, run, fingerprint, code), folder)


def state_of(run: Run, key: str, folder: ResultFolder) -> State:
    """Tell how a run stands by what a folder holds."""
    line = folder.lines.get(key)
    if line is None:
        return State(run, MISSING, key=key)
    error = line.get("error") or {}
    reason = f"{error['type']}: {error['message']}" if error else ""
    return State(run, line["status"], reason, key, line)


def pending(states: Iterable[State], only: str | None = None, retry_failed: bool = False) -> list[State]:
    """Return the runs that are still to be made.

    Args:
        states: How all runs stand.
        only: A shell pattern, as `Run.matches` takes it.
        retry_failed: Whether failed runs are made again.
    """
    wanted = (MISSING, FAILED) if retry_failed else (MISSING,)
    return [
        state
        for state in states
        if state.status in wanted and state.key is not None and (only is None or state.run.matches(only))
    ]


def make_runs(
    plan: Plan,
    states: Sequence[State],
    folder: ResultFolder,
    *,
    root: Path | None = None,
    jobs: int = 1,
    device: str = "auto",
    dask: str | None = None,
    on_line: Callable[[State], None] | None = None,
) -> None:
    """Make runs, and keep each as soon as it has ended.

    On a GPU the seeds of a network train together. Runs are made in so many processes, which share the GPU, or as tasks of Dask.

    Args:
        plan: What they are of.
        states: The runs to make, as `pending` returns them.
        folder: Held by the caller.
        root: Folder of reference data.
        jobs: Processes.
        device: "auto" (a GPU if there is one), or torch's name of a device.
        dask: Address of a Dask scheduler, whose workers see the data under the same paths.
        on_line: Called with each run that has ended.

    Raises:
        MissingPackageError: Tuning is asked for and Optuna is not installed.
        SettingsError: There is no such device.
        ClusterError: No Dask scheduler answers, or it is gone.
        TrainingInterrupted: Ctrl-C.
    """
    target = check_means(plan, device)
    keys = {state.run.place: str(state.key) for state in states}
    code = code_version()
    try:
        for outcome in _outcomes(plan, states, root, jobs, target, dask):
            place = "cpu" if outcome.run.model.simple is not None else target
            key = keys[outcome.run.place]
            folder.keep(key, outcome, {"code": code, **provenance(place)})
            if on_line is not None:
                on_line(state_of(outcome.run, key, folder))
    except (KeyboardInterrupt, TrainingInterrupted):
        raise TrainingInterrupted(
            "the experiment was stopped",
            file=folder.path,
            remedy="Runs that have ended are kept; the same command goes on.",
        ) from None


def check_means(plan: Plan, device: str) -> str:
    """Check that what a plan needs is here, and return the device's name.

    Raises:
        MissingPackageError: Tuning is asked for and Optuna is not installed.
        SettingsError: There is no such device.
    """
    if any(run.model.simple is None for run in plan.runs):
        check_tuning(plan.tuning.trials)
    return str(find_device(device))


def _outcomes(
    plan: Plan, states: Sequence[State], root: Path | None, jobs: int, device: str, dask: str | None
) -> Iterator[Outcome]:
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    groups = [(state.run,) for state in states] if dask else _groups([state.run for state in states], device)
    orders = [Order(runs, plan.tuning, plan.maps, device, threads, root) for runs in groups]
    if dask is not None:
        yield from _on_cluster(orders, dask)
    elif jobs > 1 and len(orders) > 1:
        yield from _in_processes(orders, jobs)
    else:
        for order in orders:
            yield from execute(order)


def _groups(runs: Sequence[Run], device: str) -> list[tuple[Run, ...]]:
    """Return runs that are made together: on a GPU the seeds of a network, anything else by itself."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        together = device.startswith("cuda") and run.model.simple is None
        groups.setdefault(run.cell if together else run.place, []).append(run)
    return [tuple(group) for group in groups.values()]


def _in_processes(orders: Sequence[Order], jobs: int) -> Iterator[Outcome]:
    """Make runs in processes; where one dies, what has not ended runs alone, and fails if its process dies again."""
    ended: set[tuple[str, str, str, int]] = set()
    try:
        for outcome in _pooled(orders, jobs):
            ended.add(outcome.run.place)
            yield outcome
    except BrokenProcessPool:
        for order in orders:
            left = tuple(run for run in order.runs if run.place not in ended)
            if not left:
                continue
            try:
                yield from _pooled([replace(order, runs=left)], 1)
            except BrokenProcessPool:
                for run in left:
                    yield failed(run, MemoryError("its process was killed, maybe for want of memory"))


def _pooled(orders: Sequence[Order], jobs: int) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_leave_with_parent)
    try:
        for future in as_completed([pool.submit(execute, order) for order in orders]):
            yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """End this process when the one that started it does, be it killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only processes that were started have this to do"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_cluster(orders: Sequence[Order], address: str) -> Iterator[Outcome]:
    """Make runs as tasks of a Dask cluster; each worker computes on its own CPU with the threads that it has."""
    from spectralmamba.cluster import connect

    with connect(address) as client:
        from distributed import as_completed as completed

        tasks = {
            client.submit(execute, replace(order, device="cpu", threads=None), pure=False, retries=1): order
            for order in orders
        }
        for future in completed(list(tasks), loop=client.loop):
            if future.cancelled():
                raise ClusterError(
                    "the Dask scheduler is gone",
                    found=address,
                    remedy="Runs that have ended are kept; the same command goes on, with or without --dask.",
                )
            error = future.exception()
            if error is None:
                yield from future.result()
            else:
                yield failed(tasks[future].runs[0], error)


def in_order(states: Sequence[State], folder: ResultFolder) -> list[State]:
    """Tell anew how runs stand, after some have been made."""
    return [state if state.key is None else state_of(state.run, state.key, folder) for state in states]
