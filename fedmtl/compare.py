"""Several runs of the same tasks, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedmtl.config import read_toml
from fedmtl.errors import RunDirectoryError
from fedmtl.inputs import by_contents, recorded_inputs
from fedmtl.metrics import Metric, mean_ranks
from fedmtl.plots.metrics import draw_runs
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import save
from fedmtl.records.finals import window_words
from fedmtl.records.single_task import SINGLE_TASK, metrics_of, percent
from fedmtl.records.summary import first_reached

RankBy = Literal["mean", "last", "best", "time"]
"""What runs are ranked by: of each task the mean of the last evaluations, the last, the best, or the time to one."""

_BY: dict[RankBy, str] = {
    "mean": "the mean",
    "last": "the last value",
    "best": "the best value",
    "time": "the time to the values above",
}


def mean_rank(by: RankBy) -> str:
    """The name of the row with the mean ranks."""
    return (
        f"mean rank over the tasks by {_BY[by]}, among these runs (equals share the mean of their ranks, diverged runs "
        "come last)"
    )


@dataclass(frozen=True)
class Comparison:
    """A table with a column per run, and pictures.

    Attributes
    ----------
    header
        The names of the columns: what is compared, then the runs.
    rows
        Cells as text, as many as `header` has.
    plots
        Files of the pictures.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    plots: tuple[Path, ...]


def compare(
    directories: Sequence[Path], out: Path, targets: Mapping[str, float] | None = None, by: RankBy = "mean"
) -> Comparison:
    """Compare finished runs, and draw each task's metric with a line per run.

    Parameters
    ----------
    directories
        Of at least two runs.
    out
        Where the pictures are written.
    targets
        By task, the value of the metric whose first time is compared. A task without one is given the best value that
        every run reached that did not diverge, so that the times say how much sooner the others were there.
    by
        What the mean rank is by; a run that diverged has the last rank in every task.

    Raises
    ------
    RunDirectoryError
        If a directory holds no finished run, the runs differ in their tasks, a target names another task, or a picture
        cannot be written.
    """
    runs = _read(directories)
    tasks = next(iter(runs.values())).tasks
    goals = _goals(runs, targets or {})
    rows: list[tuple[str, ...]] = [
        (label, *(value(run) for run in runs.values())) for label, value in _general().items()
    ]
    rows[2:2] = _differing(directories)  # beside strategy and seed
    rows += _diverged(runs)
    rows.append(("means are over", *(window_words(run.summary.get("mean_over")) for run in runs.values())))
    for task in tasks:
        name, better = task["name"], "higher" if task["higher_is_better"] else "lower"
        for what in dict.fromkeys(("mean", by) if by in _KEYS else ("mean",)):
            rows.append((f"{name}: {task['metric']}, {what} ({better} is better)", *_values(runs, name, what)))
        for group, who in (("slow", "slower half of the clients"), ("worst", "worst tenth of the clients")):
            cells = [_number(_task(run, name)["groups"].get(group)) for run in runs.values()]
            if any(cell != _NONE for cell in cells):
                rows.append((f"{name}: last, {who}", *cells))
        if name in goals:
            rows.append(
                (f"{name}: time to {goals[name]:.4g}", *(_time_to(run, task, goals[name]) for run in runs.values()))
            )
    rows += _against_single_task(runs)
    rows.append((mean_rank(by), *(f"{rank:.2f}" for rank in _mean_ranks(runs, by, goals).values())))
    return Comparison(("", *runs), tuple(rows), tuple(_draw(runs, out)))


_NONE = "-"
_EXPERIMENT = "experiment.toml"
_SECTIONS = ("strategy", "data", "tasks", "model", "devices", "balancing", "compression", "training")
"""Of an experiment, what changes results."""


def _read(directories: Sequence[Path]) -> dict[str, RunTables]:
    """The runs by their labels: names of directories, or paths where two have the same name."""
    if len(directories) < 2:
        raise RunDirectoryError("a comparison needs at least two run directories")
    names = [directory.resolve().name for directory in directories]
    labels = names if len(set(names)) == len(names) else [str(directory) for directory in directories]
    if len(set(labels)) < len(labels):
        raise RunDirectoryError("a run directory is named twice")
    runs = {label: RunTables.read(directory) for label, directory in zip(labels, directories, strict=True)}
    first, *others = runs
    expected = _described(runs[first])
    for label in others:
        if (found := _described(runs[label])) != expected:
            raise RunDirectoryError(
                f"{first} and {label} learn different tasks and cannot be compared: {', '.join(expected)} against "
                f"{', '.join(found)}"
            )
    return runs


def _described(run: RunTables) -> list[str]:
    return [f"{task['name']} ({task['metric']})" for task in run.tasks]


def _general() -> dict[str, Callable[[RunTables], str]]:
    return {
        "strategy": lambda run: str(run.summary["strategy"]),
        "seed": lambda run: str(run.summary["seed"]),
        "versions": lambda run: f"{run.summary['versions']:,}",
        "time": lambda run: _seconds(run.summary["time"]),
        "updates applied": lambda run: f"{run.summary['updates']['applied']:,}",
        "updates rejected": lambda run: f"{run.summary['updates']['rejected']:,}",
        "sent by clients": lambda run: f"{run.summary['bytes']['up'] / 1e6:,.1f} MB",
        "sent to clients": lambda run: f"{run.summary['bytes']['down'] / 1e6:,.1f} MB",
    }


def _differing(directories: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """The settings in which the runs differ, so that nobody takes the effect of one for that of another.

    Files count by their contents: one that was moved is no difference, another under the same path is.
    """
    files = [directory / _EXPERIMENT for directory in directories]
    if not all(file.is_file() for file in files):
        return
    inputs = [recorded_inputs(directory) or {} for directory in directories]
    tables = [by_contents(read_toml(file), read) for file, read in zip(files, inputs, strict=True)]
    names = {one.sha256: f"{Path(one.path).name} ({one.sha256[:8]})" for read in inputs for one in read.values()}
    for section in _SECTIONS:
        settings = [dict(_settings(table.get(section, {}), f"{section}.")) for table in tables]
        keys = dict.fromkeys(key for one in settings for key in one)
        rows = {key: [one.get(key, _NONE) for one in settings] for key in keys}
        differing = {key: cells for key, cells in rows.items() if len(set(cells)) > 1}
        # Options of different components say nothing beside each other.
        component = next((key for key in (f"{section}.name", f"{section}.kind") if key in differing), None)
        if component is not None:
            differing = {key: cells for key, cells in differing.items() if key in (component, f"{section}.seed")}
        yield from (
            (key, *(names.get(cell, cell) for cell in cells))
            for key, cells in differing.items()
            if key != "strategy.name"
        )


def _settings(tables: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    """Keys with their sections, and values as text."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)


def _goals(runs: Mapping[str, RunTables], targets: Mapping[str, float]) -> dict[str, float]:
    tasks = next(iter(runs.values())).tasks
    if unknown := sorted(set(targets) - {task["name"] for task in tasks}):
        raise RunDirectoryError(
            f"there is no task {unknown[0]!r} in these runs; known: {', '.join(task['name'] for task in tasks)}"
        )
    goals = dict(targets)
    for task in tasks:
        sound = [run for run in runs.values() if not run.diverged] or list(runs.values())
        bests = [_task(run, task["name"])["best"] for run in sound]
        if None not in bests:
            goals.setdefault(task["name"], min(bests) if task["higher_is_better"] else max(bests))
    return goals


def _task(run: RunTables, name: str) -> Mapping[str, Any]:
    return next(task for task in run.tasks if task["name"] == name)


def _diverged(runs: Mapping[str, RunTables]) -> Iterator[tuple[str, ...]]:
    """Where runs diverged; nothing if none did."""
    found = [run.summary.get("diverged") for run in runs.values()]
    if any(found):
        yield ("diverged", *(_NONE if one is None else _where(one) for one in found))


def _where(diverged: Mapping[str, Any]) -> str:
    return f"version {diverged['version']:,}, {diverged['task'] or 'a server step'}"


_KEYS = {"mean": "mean_of_last", "last": "last", "best": "best"}


def _values(runs: Mapping[str, RunTables], task: str, what: str) -> list[str]:
    return [_number(_task(run, task)[_KEYS[what]]) for run in runs.values()]


def _mean_ranks(runs: Mapping[str, RunTables], by: RankBy, goals: Mapping[str, float]) -> dict[str, float]:
    """Each run's mean rank; a run that diverged is last in every task, whatever it had reached before."""
    metrics = metrics_of(next(iter(runs.values())).summary)
    values = {label: [_to_rank(run, metric.task, by, goals) for metric in metrics] for label, run in runs.items()}
    if by == "time":
        metrics = [Metric(metric.task, "time", higher_is_better=False) for metric in metrics]
    return mean_ranks(values, metrics)


def _to_rank(run: RunTables, name: str, by: RankBy, goals: Mapping[str, float]) -> float:
    """What a run is ranked by in a task; not a number if it has no such value, or diverged."""
    task = _task(run, name)
    if run.diverged:
        return math.nan
    if by == "time":
        reached = _reached(run, task, goals[name]) if name in goals else None
        return math.nan if reached is None else reached[1]
    value = task[_KEYS[by]]
    return math.nan if value is None else float(value)


def _against_single_task(runs: Mapping[str, RunTables]) -> Iterator[tuple[str, ...]]:
    """Each task's change from single-task models and delta-m, where a run has them."""
    found = [run.summary.get(SINGLE_TASK) for run in runs.values()]
    if not any(found):
        return
    for task in next(iter(runs.values())).tasks:
        name = task["name"]
        cells = (percent(None if one is None else one["tasks"][name]["change"]) for one in found)
        yield (f"{name}: change from the task alone (+ is worse)", *cells)
    for key, what in (("delta_m", "metric"), ("delta_m_by_task", "task")):
        cells = (percent(None if one is None else one[key]) for one in found)
        yield (f"delta-m by {what} (lower is better)", *cells)


def _reached(run: RunTables, task: Mapping[str, Any], value: float) -> tuple[int, float] | None:
    better = bool(task["higher_is_better"])
    return first_reached(run.evaluations, task["name"], task["metric"], value, higher_is_better=better)


def _time_to(run: RunTables, task: Mapping[str, Any], value: float) -> str:
    reached = _reached(run, task, value)
    return "not reached" if reached is None else _seconds(reached[1])


def _draw(runs: Mapping[str, RunTables], out: Path) -> list[Path]:
    figures = {f"compare-by-{against}": draw_runs(runs, against) for against in ("time", "version")}
    return [save(figure, out / f"{name}.png") for name, figure in figures.items() if figure is not None]


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"


def _seconds(value: float) -> str:
    return f"{value:,.1f} s"
