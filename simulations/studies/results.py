"""What a study says: a row per run and task, a table with confidence intervals, and plots."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from fedmtl.files import replacing
from fedmtl.intervals import fixed
from fedmtl.intervals import interval as interval
from fedmtl.records.finals import final_mean
from fedmtl.records.schemas import read_table
from fedmtl.records.summary import read_summary
from simulations.studies.across_tasks import add_comparisons, task_tables
from simulations.studies.columns import COMPARISONS, Outcome, diverged_words
from simulations.studies.overview import overview_lines
from simulations.studies.run import chosen, has_diverged, is_done, run_directory
from simulations.studies.study import Study

DROPS = (5, 10)
"""Drops of an accuracy between two evaluations that count as oscillations, percentage points."""


Curve = tuple[np.ndarray, np.ndarray]
"""Times of evaluations and a task's metric on the test set, shape [evaluations] each."""


def outcomes(directory: Path, targets: Mapping[str, float], curves: dict[str, Curve] | None = None) -> list[Outcome]:
    """The outcomes of a finished run, a task each; `same_time` is not known yet.

    Parameters
    ----------
    directory
        The run's.
    targets
        Values that a task's metric is to reach, by task.
    curves
        If given, the tasks' metrics over time are put here.

    Raises
    ------
    RunDirectoryError
        If the directory holds no finished run.
    """
    summary = read_summary(directory)
    directions = {task["name"]: task["higher_is_better"] for task in summary["tasks"]}
    diverged = summary.get("diverged")
    rows = read_table(directory, "evaluations").to_pylist()
    found = []
    for task, higher in directions.items():
        chosen = [row for row in rows if row["task"] == task and row["metric"] != "loss"]
        test = [row for row in chosen if row["group"] == "test"]
        worst = [row for row in chosen if row["group"] == "worst"]
        values, times = np.array([row["value"] for row in test]), np.array([row["time"] for row in test])
        if curves is not None:
            curves[task] = times, values
        first, stable = (math.nan, math.nan) if diverged else _reached(values, times, targets.get(task), higher)
        drops = [_drops(values, points) if test[0]["metric"] == "accuracy" else -1 for points in DROPS]
        found.append(
            Outcome(
                task=task,
                metric=test[0]["metric"],
                final=math.nan if diverged else _final(test),
                same_time=math.nan,
                best=_best(values, higher),
                worst_clients=math.nan if diverged else _final(worst),
                time_to_target=first,
                stable_at=stable,
                drops_5=drops[0],
                drops_10=drops[1],
                diverged_at=diverged["version"] if diverged else -1,
            )
        )
    return found


def _final(rows: Sequence[Mapping[str, Any]]) -> float:
    """The final value of a task's metric in a group."""
    return final_mean([row["version"] for row in rows], [row["value"] for row in rows])


def _best(values: np.ndarray, higher: bool) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max() if higher else finite.min()) if finite.size else math.nan


def _drops(accuracies: np.ndarray, points: float) -> int:
    """How often an accuracy fell by more than so many points; one of just so many must not count by its rounding."""
    return int((-100 * np.diff(accuracies) > points + 1e-6).sum())


def _reached(values: np.ndarray, times: np.ndarray, target: float | None, higher: bool) -> tuple[float, float]:
    """When the target was first reached, and when for good."""
    if target is None:
        return math.nan, math.nan
    good = values >= target if higher else values <= target
    if not good.any():
        return math.nan, math.nan
    bad = np.flatnonzero(~good)
    stable = 0 if not bad.size else bad[-1] + 1
    return float(times[good.argmax()]), float(times[stable]) if stable < len(times) else math.nan


def value_at(curve: Curve, end: float) -> float:
    """Mean of a metric over the evaluations in the last tenth of the time until `end`, or the last before it."""
    times, values = curve
    recent = values[(times > 0.9 * end) & (times <= end)]
    if not recent.size:
        recent = values[times <= end][-1:]
    return float(recent.mean()) if recent.size else math.nan


def collect(study: Study, out: Path) -> pa.Table:
    """A row for each task of each finished run of the study; also written to ``results.parquet``.

    Raises
    ------
    RunDirectoryError
        If a run or a single-task baseline is damaged.
    """
    rows: list[dict[str, Any]] = []
    contests: dict[tuple[Any, ...], list[tuple[dict[str, Any], Curve]]] = defaultdict(list)
    for cell in study.cells():
        if is_done(out, cell):
            directory = run_directory(out, cell)
            place: dict[str, Any] = {**cell.labels, "seed": cell.seed}
            curves: dict[str, Curve] = {}
            found = [place | asdict(outcome) for outcome in outcomes(directory, study.targets, curves)]
            _, *others = place.values()
            for row in found:
                contests[(*others, row["task"])].append((row, curves[row["task"]]))
            rows += found
    for contest in contests.values():
        # A run that diverged may have been cut short by that.
        sound = [times[-1] for row, (times, _) in contest if row["diverged_at"] < 0]
        end = min(sound, default=math.nan)
        for row, curve in contest:
            row["same_time"] = value_at(curve, end) if row["diverged_at"] < 0 else math.nan
    add_comparisons(study, out, rows)
    axes = [(name, pa.string()) for name in study.axes]
    further = [(name, pa.float64()) for name in COMPARISONS]
    kinds = {"str": pa.string(), "float": pa.float64(), "int": pa.int64()}
    own = [(f.name, kinds[str(f.type)]) for f in fields(Outcome)]
    schema = pa.schema([*axes, ("seed", pa.int64()), *own, *further])
    table = pa.Table.from_pylist(rows, schema=schema)
    with replacing(out / "results.parquet") as temporary:
        pq.write_table(table, temporary)
    with replacing(out / "results.csv") as temporary:
        csv.write_csv(table, temporary)
    return table


def count_diverged(study: Study, results: pa.Table) -> int:
    """How many runs of a study diverged."""
    names = (*study.axes, "seed")
    return len({tuple(row[name] for name in names) for row in results.to_pylist() if row["diverged_at"] >= 0})


def write_table(study: Study, results: pa.Table, out: Path) -> Path:
    """Write ``table.md``: a table for each combination of the further axes and each task; the best mean is bold.

    With several tasks a table of all of them comes first, for each combination.
    """
    lines = [f"# {study.name}", "", f"Seeds: {', '.join(map(str, study.seeds))}. Mean ± half the 95 % interval.", ""]
    lines += [*overview_lines(study, results), *choice_table(study, out)]
    if together := task_tables(study, results):
        lines += [*together, "# Task by task", ""]
    for place, task, groups in _parts(study, results):
        if not groups:
            continue
        metric = next(iter(groups.values()))[0]["metric"]
        lines += [f"## {', '.join([*place, task])}", "", *_rows(metric, groups, study.targets.get(task)), ""]
    path = out / "table.md"
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    return path


def choice_table(study: Study, out: Path) -> list[str]:
    """What was chosen beforehand, a row for each label of the first axis that choices depend on."""
    choices, tuning = chosen(study, out), study.tuning
    if choices is None or tuning is None:
        return []
    columns = list(dict.fromkeys(place[1:] for place in choices))
    values = ", ".join(map(str, tuning.usual.values))
    lines = ["## Chosen beforehand", "", f"{tuning.usual.key}, of {values}, unless said, by {tuning.judged_by()}.", ""]
    lines += [f"| | {' | '.join(', '.join(column) for column in columns)} |", "|---|" + "---:|" * len(columns)]
    starred = False
    for label in dict.fromkeys(place[0] for place in choices):
        other = tuning.instead.get(label)
        name = label if other is None else f"{label}: {other.key}, of {', '.join(map(str, other.values))}"
        places = [(label, *column) for column in columns]
        marks = ["*" if has_diverged(study, out, place, choices[place]) else "" for place in places]
        starred |= any(marks)
        cells = [f"{choices[place]}{mark}" for place, mark in zip(places, marks, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, *(["", r"\* Runs diverged with every value."] if starred else []), ""]


def _rows(metric: str, groups: Mapping[str, list[dict[str, Any]]], target: float | None) -> Iterator[str]:
    """A Markdown table: a row for each label of the compared axis."""
    higher = metric == "accuracy"
    finals = {label: interval([row["final"] for row in rows]) for label, rows in groups.items()}
    best = (max if higher else min)((mean for mean, _ in finals.values() if math.isfinite(mean)), default=math.nan)
    arrow = "↑" if higher else "↓"
    reach = f" time to {target:g} (s) | for good (s) |" if target is not None else ""
    drops = " drops > 5 | > 10 |" if higher else ""
    yield f"| | {metric} {arrow} | at the same time | worst clients |{reach}{drops} runs |"
    yield "|---|" + "---:|" * (4 + 2 * (target is not None) + 2 * higher)
    for label, rows in groups.items():
        mean, half = finals[label]
        lost = sum(not math.isfinite(row["final"]) for row in rows)
        text = diverged_words(lost, len(rows)) if lost else fixed(mean, 3)
        text += f" ± {fixed(half, 3)}" if math.isfinite(half) else ""
        cells = [f"**{text}**" if mean == best else text]
        cells += ["-" if lost else _mean([r[name] for r in rows]) for name in ("same_time", "worst_clients")]
        if target is not None:
            cells += [_times([r[name] for r in rows]) for name in ("time_to_target", "stable_at")]
        if higher:
            cells += [f"{np.mean([r[name] for r in rows]):.1f}" for name in ("drops_5", "drops_10")]
        yield f"| {label} | {' | '.join(cells)} | {len(rows)} |"


def _mean(values: Sequence[float]) -> str:
    """The mean of the values that are known."""
    known = [value for value in values if not math.isnan(value)]
    return fixed(float(np.mean(known)), 3) if known else "-"


def _times(values: Sequence[float]) -> str:
    """Mean time over the runs that got there, and how many did where not all."""
    there = [value for value in values if math.isfinite(value)]
    if not there:
        return "-"
    return f"{np.mean(there):.0f}" + ("" if len(there) == len(values) else f" ({len(there)} of {len(values)})")


def _parts(study: Study, results: pa.Table) -> Iterator[tuple[tuple[str, ...], str, dict[str, list[dict[str, Any]]]]]:
    """For each combination of the further axes and each task: the rows, by label of the compared axis."""
    compared, *others = study.axes
    rows = results.to_pylist()
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for place in itertools.product(*(study.axes[name] for name in others)):
        for task in tasks:
            here = [r for r in rows if r["task"] == task and all(r[n] == p for n, p in zip(others, place, strict=True))]
            groups = {label: [r for r in here if r[compared] == label] for label in study.axes[compared]}
            yield place, task, {label: chosen for label, chosen in groups.items() if chosen}
