"""What learning several tasks together changes, against models that learned one task each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedmtl.metrics import Metric, changes, delta_m, delta_m_by_task

SINGLE_TASK = "single_task"
"""The key of a run's summary under which `against_single_task` stands."""


def metrics_of(summary: Mapping[str, Any]) -> list[Metric]:
    """The metric of each task of a run."""
    return [Metric(task["name"], task["metric"], bool(task["higher_is_better"])) for task in summary["tasks"]]


def finals_of(summary: Mapping[str, Any]) -> list[float]:
    """Each task's final metric; not a number where it was not finite, and in a run that diverged."""
    if summary.get("diverged"):
        return [float("nan")] * len(summary["tasks"])
    return [float("nan") if task["mean_of_last"] is None else task["mean_of_last"] for task in summary["tasks"]]


def against_single_task(summary: Mapping[str, Any], single_task: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Changes of a run's final metrics against those of single-task models, as JSON-compatible values.

    Parameters
    ----------
    summary
        Of the run.
    single_task
        For each task its single-task model: its `value`, which is not a number if it diverged, and the `directory` of
        its run.

    Returns
    -------
    dict
        For each task of `tasks` its single-task `value`, the `directory`, and the `change` in per cent (positive is
        worse); `delta_m` and `delta_m_by_task` (see :mod:`fedmtl.metrics`); and the `problem`, if the run or a
        single-task model diverged, or a single-task value is one that nothing can be relative to: its task's change is
        then None, and so are both delta-m.
    """
    metrics, finals = metrics_of(summary), finals_of(summary)
    tasks: dict[str, dict[str, Any]] = {}
    problems = ["the run has diverged"] if summary.get("diverged") else []
    for metric, final in zip(metrics, finals, strict=True):
        single = single_task[metric.task]
        change: float | None = None
        try:
            change = changes([final], [single["value"]], [metric])[0] + 0.0  # no change is not minus zero
        except ValueError as error:
            diverged = math.isnan(single["value"])
            problems.append(f"{metric.task}: the single-task model has diverged" if diverged else str(error))
        if change is not None and not math.isfinite(change):
            change = None
            if not summary.get("diverged"):
                problems.append(f"{metric.task}, {metric.name}: the final value is {final}")
        tasks[metric.task] = {**single, "change": change}
    base = [tasks[metric.task]["value"] for metric in metrics]
    return {
        "tasks": tasks,
        "delta_m": None if problems else delta_m(finals, base, metrics),
        "delta_m_by_task": None if problems else delta_m_by_task(finals, base, metrics),
        "problem": "; ".join(problems) or None,
    }


def percent(change: float | None) -> str:
    """A change as text, with its sign."""
    return "-" if change is None else f"{change:+.2f} %"


def delta_m_words(found: Mapping[str, Any]) -> str:
    """Delta-m in a line, or why there is none."""
    if found["problem"] is not None:
        return f"no delta-m: {found['problem']}"
    return f"{percent(found['delta_m'])} by metric, {percent(found['delta_m_by_task'])} by task (lower is better)"
