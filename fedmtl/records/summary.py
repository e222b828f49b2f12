"""What became of a run, in numbers: ``summary.json``."""

from __future__ import annotations

import functools
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedmtl.errors import RunDirectoryError
from fedmtl.files import replacing
from fedmtl.records.divergence import Divergence, watch_of
from fedmtl.records.finals import final_mean, final_window
from fedmtl.records.recorder import Recorder
from fedmtl.results import RESULTS
from fedmtl.tasks import Task

SUMMARY = "summary.json"

_KEYS = (
    *("name", "strategy", "seed", "ended", "versions", "time", "wall_seconds"),
    *("updates", "bytes", "tasks", "target", "packages"),
)
_TASK_KEYS = ("name", "metric", "higher_is_better", "last", "mean_of_last", "best", "groups")

_PACKAGES = ("fedmtl", "torch", "numpy", "flwr", "ray", "pyarrow")


def summarise(
    recorder: Recorder,
    *,
    name: str,
    strategy: str,
    seed: int,
    ended: str,
    time: float,
    wall_seconds: float,
    seeds: Mapping[str, int] | None = None,
    target: tuple[str, float] | None = None,
    refused: Divergence | None = None,
) -> dict[str, Any]:
    """What became of a run, as values that JSON has: a number that is not finite is None.

    Parameters
    ----------
    recorder
        With every row of the run.
    name, strategy, seed
        Of the experiment.
    ended
        Why the run ended.
    time
        Seconds of the fleet's clock at the end.
    wall_seconds
        What the run really took.
    seeds
        By what they are of: data, devices and first model.
    target
        A task and the value that its metric on the test set was to reach, if there was one.
    refused
        The server step that would have made the model not finite, if there was one: the run has then diverged, even if
        no evaluation shows it.
    """
    updates, evaluations = recorder.table("updates"), recorder.table("evaluations")
    diverged = watch_of(evaluations).found or refused
    versions = evaluations["version"].unique().to_numpy()
    applied = updates.num_rows - updates["applied_version"].null_count
    rejected = updates.num_rows - updates["rejected"].null_count
    found = {
        "name": name,
        "strategy": strategy,
        "seed": seed,
        **({} if seeds is None else {"seeds": dict(seeds)}),
        "ended": ended,
        "diverged": None if diverged is None else diverged.as_json(),
        "versions": pc.max(recorder.table("aggregations")["version"]).as_py() or 0,
        "time": time,
        "wall_seconds": wall_seconds,
        "updates": {"applied": applied, "rejected": rejected, "unsettled": updates.num_rows - applied - rejected},
        "bytes": {"up": pc.sum(updates["bytes_up"]).as_py() or 0, "down": pc.sum(updates["bytes_down"]).as_py() or 0},
        **_connections_summary(recorder),
        "mean_over": final_window(versions).as_json(),
        "tasks": [_task_summary(task, evaluations) for task in recorder.tasks],
        "target": None if target is None else _target_summary(recorder.tasks, evaluations, *target),
        "results": RESULTS,
        "packages": package_versions(),
    }
    return {key: _finite(value) for key, value in found.items()}


def write_summary(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``; numbers that are not finite become null, which JSON has.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    text = json.dumps(_finite(summary), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(directory / SUMMARY) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_summary(directory: Path) -> dict[str, Any]:
    """What `write_summary` wrote.

    Raises
    ------
    RunDirectoryError
        If the directory holds no finished run, or the file is damaged.
    """
    path = directory / SUMMARY
    if not path.is_file():
        unfinished = (directory / "experiment.toml").is_file()
        remedy = f"; finish the run that it holds with fedmtl run --resume {directory}" if unfinished else ""
        raise RunDirectoryError(f"{directory} holds no finished run: {SUMMARY} is missing{remedy}")
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}") from None
    if (missing := _missing(summary)) is not None:
        raise RunDirectoryError(f"{path} is not the summary of a run: {missing} is missing")
    return summary


def results_of(directory: Path) -> int | None:
    """The number of the results of a finished run (:data:`fedmtl.results.RESULTS`); None if there is none here.

    Raises
    ------
    RunDirectoryError
        If the summary is damaged.
    """
    return int(read_summary(directory).get("results", 1)) if (directory / SUMMARY).exists() else None


def _missing(summary: Any) -> str | None:
    """A key that a summary needs and this one lacks."""
    if not isinstance(summary, dict):
        return _KEYS[0]
    if absent := [key for key in _KEYS if key not in summary]:
        return absent[0]
    tasks = summary["tasks"]
    if not isinstance(tasks, list) or not tasks:
        return "tasks"
    return next((f"tasks.{key}" for task in tasks for key in _TASK_KEYS if key not in task), None)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes, as far as they are installed."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {"python": platform.python_version()} | {name: v for name, v in versions.items() if v is not None}


@functools.cache  # a file is read for each, and a process goes on with what it has loaded
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _task_summary(task: Task, evaluations: pa.Table) -> dict[str, Any]:
    """Metric on the test set: last, mean over the final window, best; and the last value of each group."""
    mine = evaluations.filter(
        pc.and_(pc.equal(evaluations["task"], task.name), pc.equal(evaluations["metric"], task.metric))
    )
    test = mine.filter(pc.equal(mine["group"], "test"))
    values = test["value"].to_numpy()
    finite = values[np.isfinite(values)]
    best = None if not finite.size else float(finite.max() if task.higher_is_better else finite.min())
    return {
        "name": task.name,
        "kind": task.kind,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "last": float(values[-1]) if values.size else None,
        "mean_of_last": final_mean(test["version"].to_numpy(), values) if values.size else None,
        "best": best,
        "groups": dict(zip(mine["group"].to_pylist(), mine["value"].to_pylist(), strict=True)),
    }


def _connections_summary(recorder: Recorder) -> dict[str, Any]:
    """How often real clients were lost, and joined after the start."""
    if "connections" not in recorder.names:
        return {}
    lost = recorder.table("connections")["lost"]
    return {"connections": {"lost": len(lost) - lost.null_count, "joined": lost.null_count}}


def _target_summary(tasks: Sequence[Task], evaluations: pa.Table, name: str, value: float) -> dict[str, Any]:
    task = next(task for task in tasks if task.name == name)
    reached = first_reached(evaluations, name, task.metric, value, higher_is_better=task.higher_is_better)
    version, time = (None, None) if reached is None else reached
    return {"task": name, "value": value, "version": version, "time": time}


def first_reached(
    evaluations: pa.Table, task: str, metric: str, value: float, *, higher_is_better: bool
) -> tuple[int, float] | None:
    """Version and time of the first evaluation on the test set in which a task's metric was at `value` or better."""
    better = pc.greater_equal if higher_is_better else pc.less_equal
    of_task = pc.and_(pc.equal(evaluations["task"], task), pc.equal(evaluations["metric"], metric))
    chosen = pc.and_(pc.and_(of_task, pc.equal(evaluations["group"], "test")), better(evaluations["value"], value))
    rows = evaluations.filter(chosen)
    return (rows["version"][0].as_py(), rows["time"][0].as_py()) if rows.num_rows else None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
