"""A study at one glance: mean ranks over all places and seeds, and what is missing."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from fedmtl.metrics import Metric, Ties, mean_ranks
from simulations.studies.study import Cell, Study

Place = tuple[str, ...]
DELTA_M = "delta-m"


@dataclass(frozen=True, eq=False)
class Overview:
    """The results of a study, finished or not, in the order in which they are shown.

    A place is a combination of labels of the axes after the first; the labels compared are those of the first.
    """

    study: Study
    results: pa.Table

    @cached_property
    def labels(self) -> list[str]:
        """The labels that are compared: those of the first axis."""
        return list(next(iter(self.study.axes.values())))

    @cached_property
    def places(self) -> list[Place]:
        """Where it is compared; one empty place if the study has one axis."""
        _, *others = self.study.axes
        return list(itertools.product(*(self.study.axes[name] for name in others)))

    @cached_property
    def tasks(self) -> dict[str, str]:
        """The metric of each task."""
        return {row["task"]: row["metric"] for row in self.results.select(["task", "metric"]).to_pylist()}

    @cached_property
    def measures(self) -> dict[str, str]:
        """The tasks, and the mean change against single-task models where the results have it."""
        has = "delta_m" in self.results.column_names and self.results["delta_m"].null_count < self.results.num_rows
        return self.tasks | ({DELTA_M: "per cent"} if has else {})

    def tasks_at(self, place: Place) -> dict[str, str]:
        """The metric of each task that there are results of in a place: data are an axis in some studies."""
        return {task: metric for task, metric in self.tasks.items() if (task, place) in self._there}

    def measures_at(self, place: Place) -> list[str]:
        """The measures that there are results of in a place."""
        return [measure for measure in self.measures if measure == DELTA_M or measure in self.tasks_at(place)]

    @cached_property
    def _there(self) -> set[tuple[str, Place]]:
        return {(task, place) for task, place, _ in self._rows}

    @cached_property
    def cells(self) -> dict[tuple[str, ...], list[Cell]]:
        """The experiments by their labels on all axes, one for each seed."""
        cells: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
        for cell in self.study.cells():
            cells[tuple(cell.labels.values())].append(cell)
        return cells

    @cached_property
    def _rows(self) -> dict[tuple[str, Place, str], list[dict[str, Any]]]:
        compared, *others = self.study.axes
        rows: dict[tuple[str, Place, str], list[dict[str, Any]]] = defaultdict(list)
        for row in self.results.to_pylist():
            place = tuple(row[name] for name in others)
            rows[row["task"], place, row[compared]].append(row)
        return rows

    def column(self, task: str, place: Place, label: str, name: str) -> np.ndarray:
        """A column of the results, a number for each finished seed."""
        rows = self._rows.get((task, place, label), [])
        return np.array([math.nan if row[name] is None else row[name] for row in rows], dtype=float)

    def finals(self, measure: str, place: Place, label: str) -> np.ndarray:
        """The final values of a task or of delta-m, one for each finished seed."""
        if measure == DELTA_M:
            return self.column(next(iter(self.tasks_at(place)), ""), place, label, "delta_m")
        return self.column(measure, place, label, "final")

    def runs(self, place: Place, label: str) -> int:
        """How many seeds are finished."""
        return max((len(self._rows.get((task, place, label), [])) for task in self.tasks), default=0)

    def diverged(self, place: Place, label: str) -> int:
        """How many of the finished runs diverged."""
        every = (row for task in self.tasks for row in self._rows.get((task, place, label), []))
        return len({row["seed"] for row in every if row["diverged_at"] >= 0})

    def ranks(self, task: str, place: Place, name: str = "final", ties: Ties = "average") -> Iterator[dict[str, float]]:
        """For each seed the rank of each label that has finished, 1 for the best, by a task or by delta-m.

        Of n of L labels, rank r becomes ``1 + (r - 1)(L - 1)/(n - 1)``, so that ranks among some are comparable
        with ranks among all. Equal values share the mean of their ranks, what is not a number comes last, and seeds
        in which fewer than two labels finished, or none of them has a number, say nothing.
        """
        lower = name in ("time_to_target", "stable_at")
        metric = Metric(task, name, not lower and higher_is_better(self.measures[task]))
        if task == DELTA_M:
            task, name = next(iter(self.tasks_at(place)), ""), "delta_m"
        by_seed: dict[int, dict[str, tuple[float]]] = defaultdict(dict)
        for label in self.labels:
            for row in self._rows.get((task, place, label), []):
                by_seed[row["seed"]][label] = (math.nan if row[name] is None else row[name],)
        for values in by_seed.values():
            if len(values) > 1 and any(math.isfinite(value) for (value,) in values.values()):
                stretch = (len(self.labels) - 1) / (len(values) - 1)
                found = mean_ranks(values, [metric], ties)
                yield {label: 1 + (rank - 1) * stretch for label, rank in found.items()}

    def mean_rank(self, tasks: Sequence[str], places: Sequence[Place], name: str = "final") -> dict[str, float]:
        """Mean rank of each label over tasks, places and seeds; not a number if it has none."""
        found: dict[str, list[float]] = {label: [] for label in self.labels}
        for task, place in itertools.product(tasks, places):
            for ranks in self.ranks(task, place, name):
                for label, rank in ranks.items():
                    found[label].append(rank)
        return {label: float(np.mean(ranks)) if ranks else math.nan for label, ranks in found.items()}

    def by_rank(self, tasks: Sequence[str], places: Sequence[Place], name: str = "final") -> list[str]:
        """The labels, that with the lowest mean rank first, those without one last."""
        ranks = self.mean_rank(tasks, places, name)
        return sorted(self.labels, key=lambda label: (math.isnan(ranks[label]), ranks[label]))

    @cached_property
    def missing(self) -> dict[str, dict[Place, int]]:
        """How many seeds are not there, by label and place; labels and places that are whole are left out."""
        found = {}
        for label in self.labels:
            gaps = {place: len(self.study.seeds) - self.runs(place, label) for place in self.places}
            if any(gaps.values()):
                found[label] = {place: gap for place, gap in gaps.items() if gap}
        return found


def higher_is_better(metric: str) -> bool:
    """The direction of a task's metric: all but accuracies are errors."""
    return metric == "accuracy"


def place_name(place: Place) -> str:
    """A place in words."""
    return ", ".join(place) or "all"


def overview_lines(study: Study, results: pa.Table) -> list[str]:
    """The study in one Markdown table, the best mean rank first, and what is missing; nothing if nothing is there."""
    whole = Overview(study, results)
    if not whole.tasks:
        return ["No run of this study has finished.", ""]
    runs, expected = sum(whole.runs(p, b) for p in whole.places for b in whole.labels), len(study.cells())
    of = f"{_count(len(whole.labels), 'label')}, {_count(len(whole.places), 'place')} and {len(study.seeds)} seeds"
    lines = ["## Overall", "", f"{runs:,} of {expected:,} runs: {of}. {_explanation(whole)}", "", *_table(whole), ""]
    if runs < expected:
        lines += [f"Missing are {expected - runs:,} runs: not run yet, or failed.", "", *_gaps(whole), ""]
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _explanation(whole: Overview) -> str:
    """How to read the table."""
    over = "tasks, places and seeds" if len(whole.tasks) > 1 else "places and seeds"
    parts = [
        f"Mean rank over {over}, 1 is best; equal values share the mean of their ranks, diverged runs come last.",
        "Best: how often it was first, shared or alone.",
        "Rank, same time: by the metric when the first of them ended, where rank is by the metric at the own end.",
    ]
    if whole.study.targets:
        parts.append("Rank by time to target: runs that never got there share the last place.")
    if whole.missing:
        parts.append("Where runs are missing, ranks among those that are there are stretched to the full field.")
    return " ".join(parts)


def _table(whole: Overview) -> Iterator[str]:
    tasks, places = list(whole.tasks), whole.places
    overall = whole.mean_rank(tasks, places)
    columns: dict[str, Mapping[str, str]] = {
        "mean rank": {b: f"**{r}**" if r == _least(overall) else r for b, r in _texts(overall, 2).items()},
        "best": _best(whole),
    }
    if len(tasks) > 1:
        columns |= {f"rank, {task}": _texts(whole.mean_rank([task], places), 1) for task in tasks}
    columns["rank, same time"] = _texts(whole.mean_rank(tasks, places, "same_time"), 1)
    columns["rank, worst clients"] = _texts(whole.mean_rank(tasks, places, "worst_clients"), 1)
    if targets := [task for task in tasks if task in whole.study.targets]:
        columns["rank, time to target"] = _texts(whole.mean_rank(targets, places, "time_to_target"), 1)
        columns["target reached"] = {label: _reached(whole, targets, label) for label in whole.labels}
    if accuracies := [task for task, metric in whole.tasks.items() if higher_is_better(metric)]:
        for points in (5, 10):
            columns[f"drops > {points}"] = _texts(_drops(whole, accuracies, f"drops_{points}"), 1)
    total = len(places) * len(whole.study.seeds)
    diverged = {label: sum(whole.diverged(place, label) for place in places) for label in whole.labels}
    if any(diverged.values()):
        columns["diverged"] = {label: str(count) for label, count in diverged.items()}
    columns["runs"] = {b: f"{sum(whole.runs(place, b) for place in places)} of {total}" for b in whole.labels}
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * len(columns)
    for label in whole.by_rank(tasks, places):
        yield f"| {label} | {' | '.join(column[label] for column in columns.values())} |"


def _texts(values: Mapping[str, float], digits: int) -> dict[str, str]:
    return {label: f"{value:.{digits}f}" if math.isfinite(value) else "-" for label, value in values.items()}


def _least(values: Mapping[str, float]) -> str:
    """The least number, as `_texts` writes it."""
    return f"{min((value for value in values.values() if math.isfinite(value)), default=math.nan):.2f}"


def _best(whole: Overview) -> dict[str, str]:
    firsts, chances = dict.fromkeys(whole.labels, 0), dict.fromkeys(whole.labels, 0)
    for task, place in itertools.product(whole.tasks, whole.places):
        for ranks in whole.ranks(task, place, ties="dense"):
            for label, rank in ranks.items():
                firsts[label] += rank == 1
                chances[label] += 1
    return {label: f"{firsts[label]} of {chances[label]}" if chances[label] else "-" for label in whole.labels}


def _reached(whole: Overview, targets: Sequence[str], label: str) -> str:
    times = [whole.column(task, place, label, "time_to_target") for task in targets for place in whole.places]
    every = np.concatenate(times)
    return f"{np.isfinite(every).sum()} of {every.size}" if every.size else "-"


def _drops(whole: Overview, accuracies: Sequence[str], name: str) -> dict[str, float]:
    """Mean over runs and tasks of how often an accuracy dropped."""
    found = {}
    for label in whole.labels:
        every = np.concatenate([whole.column(task, p, label, name) for task in accuracies for p in whole.places])
        found[label] = float(every.mean()) if every.size else math.nan
    return found


def _gaps(whole: Overview) -> Iterator[str]:
    """A line for each kind of gap: the labels, and in which places how many of the seeds are missing."""
    seeds, alike = len(whole.study.seeds), defaultdict(list)
    for label, gaps in whole.missing.items():
        everywhere = len(gaps) == len(whole.places) and len(set(gaps.values())) == 1
        where = {"everywhere": next(iter(gaps.values()))} if everywhere else {place_name(p): g for p, g in gaps.items()}
        alike["; ".join(f"{place}, {gap} of {seeds} seeds" for place, gap in where.items())].append(label)
    for text, labels in alike.items():
        yield f"- {', '.join(labels)}: {text}"
