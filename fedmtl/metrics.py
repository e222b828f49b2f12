"""How much several tasks gain or lose together: delta-m against single-task models, and mean rank among methods.

Delta-m is that of "Attentive Single-Tasking of Multiple Tasks" (arXiv 1904.08918). It weighs metrics, not tasks: on
NYUv2 the normals own five of nine. So there is a second one that averages over each task's metrics first. Both grow
without bound where a single-task value is near 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Ties = Literal["average", "dense"]


@dataclass(frozen=True)
class Metric:
    """One metric of one task, and its direction."""

    task: str
    name: str
    higher_is_better: bool


def changes(values: Sequence[float], baseline: Sequence[float], metrics: Sequence[Metric]) -> list[float]:
    """Relative change of each metric against the baseline, in per cent; positive is worse, whatever the direction.

    Parameters
    ----------
    values, baseline
        One value for each metric: the method's, and the single-task models'.
    metrics
        What they are.

    Raises
    ------
    ValueError
        If the lengths differ, or a baseline value is 0 or not finite: there is no change relative to it.
    """
    if not len(values) == len(baseline) == len(metrics) > 0:
        raise ValueError(
            f"{len(values)} values, {len(baseline)} of the baseline and {len(metrics)} metrics: expected as many"
        )
    for base, metric in zip(baseline, metrics, strict=True):
        if base == 0 or not math.isfinite(base):
            raise ValueError(f"{metric.task}, {metric.name}: the baseline is {base}, and no change is relative to that")
    return [
        (-100 if metric.higher_is_better else 100) * (value - base) / base
        for value, base, metric in zip(values, baseline, metrics, strict=True)
    ]


def delta_m(values: Sequence[float], baseline: Sequence[float], metrics: Sequence[Metric]) -> float:
    """``100/S sum_s (-1)^delta_s (M_s - B_s) / B_s`` over the S metrics, in per cent; lower is better.

    Parameters and errors are those of `changes`.
    """
    return float(np.mean(changes(values, baseline, metrics)))


def delta_m_by_task(values: Sequence[float], baseline: Sequence[float], metrics: Sequence[Metric]) -> float:
    """The mean over tasks of each task's mean change, in per cent; lower is better.

    Parameters and errors are those of `changes`.
    """
    by_task: dict[str, list[float]] = {}
    for change, metric in zip(changes(values, baseline, metrics), metrics, strict=True):
        by_task.setdefault(metric.task, []).append(change)
    return float(np.mean([np.mean(of_task) for of_task in by_task.values()]))


def mean_ranks(
    values: Mapping[str, Sequence[float]], metrics: Sequence[Metric], ties: Ties = "average"
) -> dict[str, float]:
    """Each method's mean rank over the metrics, 1 for the best; it depends on which methods are compared.

    Parameters
    ----------
    values
        For each method one value for each metric. A value that is not a number is worse than all that are.
    metrics
        What they are.
    ties
        What equal values are given: ``"average"``, the mean of the ranks that they take up (1, 2.5, 2.5, 4), or
        ``"dense"``, the same rank with none left out after it (1, 2, 2, 3).

    Raises
    ------
    ValueError
        If a method has another number of values than there are metrics, or there are none.
    """
    from scipy.stats import rankdata

    for method, row in values.items():
        if len(row) != len(metrics):
            raise ValueError(f"{method} has {len(row)} values for {len(metrics)} metrics")
    if not values or not metrics:
        raise ValueError("ranks need at least one method and one metric")
    table = np.array(list(values.values()), dtype=np.float64)
    table[:, [metric.higher_is_better for metric in metrics]] *= -1
    table[np.isnan(table)] = np.inf
    ranks = rankdata(table, method=ties, axis=0)
    return dict(zip(values, ranks.mean(axis=1).tolist(), strict=True))
