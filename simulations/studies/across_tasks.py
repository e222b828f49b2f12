"""What a study of several tasks says: changes from single-task models, delta-m, ranks, and a table for each place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedmtl.intervals import fixed, interval
from fedmtl.metrics import Metric, mean_ranks
from fedmtl.records.single_task import against_single_task
from fedmtl.records.summary import read_summary
from simulations.studies.baselines import StudyBaselines
from simulations.studies.columns import COMPARISONS, diverged_words
from simulations.studies.run import run_directory
from simulations.studies.study import Study

Row = dict[str, Any]


def add_comparisons(study: Study, out: Path, rows: Sequence[Row]) -> None:
    """Give the rows of a study's results the columns `COMPARISONS`.

    Raises
    ------
    RunDirectoryError
        If a single-task baseline is damaged.
    """
    for row in rows:
        row.update(dict.fromkeys(COMPARISONS))
    if study.baselines:
        _add_changes(study, out, rows)
    _add_ranks(study, rows)


def _add_changes(study: Study, out: Path, rows: Sequence[Row]) -> None:
    known, by_run = StudyBaselines(study, out), _by(rows, (*study.axes, "seed"))
    for cell in study.cells():
        mine = by_run.get((*cell.labels.values(), cell.seed))
        if mine is None or (values := known.values(cell)) is None:
            continue
        single_task = {task: {"value": value} for task, value in values.items()}
        found = against_single_task(read_summary(run_directory(out, cell)), single_task)
        for row in mine:
            row["single_task"] = values[row["task"]]
            row["change"] = found["tasks"][row["task"]]["change"]
            row["delta_m"], row["delta_m_by_task"] = found["delta_m"], found["delta_m_by_task"]
            if row["diverged_at"] >= 0:  # nothing, as a baseline that diverged, would leave a mean over the other seeds
                row.update(dict.fromkeys(("change", "delta_m", "delta_m_by_task"), math.nan))


def _add_ranks(study: Study, rows: Sequence[Row]) -> None:
    """Mean ranks over the tasks among the labels of the first axis, within each place and seed.

    Labels of which no run of the place has finished do not count; a seed in which another one is missing has no ranks.
    """
    compared, *others = study.axes
    for here in _by(rows, others).values():
        labels = {row[compared] for row in here}
        for of_seed in _by(here, ("seed",)).values():
            by_label = _by(of_seed, (compared,))
            if len(by_label) < len(labels):
                continue
            metrics = [_metric(row) for row in next(iter(by_label.values()))]
            finals = {label: [row["final"] for row in mine] for (label,), mine in by_label.items()}
            for label, rank in mean_ranks(finals, metrics).items():
                for row in by_label[label,]:
                    row["mean_rank"] = rank


def _by(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _metric(row: Row) -> Metric:
    return Metric(row["task"], row["metric"], row["metric"] == "accuracy")


def task_tables(study: Study, results: pa.Table) -> list[str]:
    """Markdown: for each place a table of all tasks, a row per label; nothing if there is one task only."""
    rows = results.to_pylist()
    metrics = list({row["task"]: _metric(row) for row in rows}.values())
    if len(metrics) < 2:
        return []
    compared, *others = study.axes
    by_place, lines = _by(rows, others), [_explanation(study), ""]
    for place in itertools.product(*(study.axes[name] for name in others)):
        if place in by_place:
            by_label = {label: mine for (label,), mine in _by(by_place[place], (compared,)).items()}
            ordered = {label: by_label[label] for label in study.axes[compared] if label in by_label}
            lines += [f"## {', '.join(place) or 'All tasks'}", "", *_table(metrics, ordered), ""]
    return lines


def _explanation(study: Study) -> str:
    text = (
        "Metrics are means over the last evaluations: at most 20, and none of the first half of the versions. Mean "
        "rank: over the tasks, among the labels of a table, within each seed; 1 is best, equal values share the mean "
        "of their ranks, and runs that diverged come last."
    )
    if not study.baselines:
        return text
    return (
        f"{text} Delta-m: mean change from single-task models of the same strategy, data and seed, in per cent; "
        "negative is better than learning each task alone."
    )


def _table(metrics: Sequence[Metric], by_label: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    columns = {
        f"{metric.task}, {metric.name} {'↑' if metric.higher_is_better else '↓'}": _column(
            {label: [row["final"] for row in mine if row["task"] == metric.task] for label, mine in by_label.items()},
            3,
            higher=metric.higher_is_better,
        )
        for metric in metrics
    }
    of_runs = {label: [row for row in mine if row["task"] == metrics[0].task] for label, mine in by_label.items()}
    for name, title, digits in _of_runs([row for mine in of_runs.values() for row in mine]):
        columns[title] = _column({label: [row[name] for row in mine] for label, mine in of_runs.items()}, digits)
    columns["runs"] = {label: str(len(mine)) for label, mine in of_runs.items()}
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * len(columns)
    for label in by_label:
        yield f"| {label} | {' | '.join(column[label] for column in columns.values())} |"


def _of_runs(rows: Sequence[Row]) -> Iterator[tuple[str, str, int]]:
    """Column, title and decimals of what is known of whole runs; delta-m by task only where it differs."""
    if any(row["delta_m"] is not None for row in rows):
        yield "delta_m", "delta-m, % ↓", 2
        if any(row["delta_m"] is not None and not math.isclose(row["delta_m"], row["delta_m_by_task"]) for row in rows):
            yield "delta_m_by_task", "delta-m by task, % ↓", 2
    yield "mean_rank", "mean rank ↓", 2


def _column(values: Mapping[str, Sequence[float | None]], digits: int, *, higher: bool = False) -> dict[str, str]:
    """Mean and half the interval of each label, the best mean in bold; a dash where nothing is known."""
    found = {label: interval([v for v in mine if v is not None]) for label, mine in values.items()}
    finite = [mean for mean, _ in found.values() if math.isfinite(mean)]
    best = (max if higher else min)(finite) if finite else math.nan
    texts = {}
    for label, (mean, half) in found.items():
        lost = sum(v is not None and not math.isfinite(v) for v in values[label])
        text = diverged_words(lost, len(values[label])) if lost else fixed(mean, digits)
        if math.isfinite(half):
            text += f" ± {fixed(half, digits)}"
        known = any(value is not None for value in values[label])
        texts[label] = (f"**{text}**" if mean == best else text) if known else "-"
    return texts
