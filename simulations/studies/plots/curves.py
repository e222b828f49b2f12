"""Metrics against virtual time: the best labels of a place, and the others behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedmtl.plots.style import GREY, line_look, log_scale, new_figure, styled, with_points
from fedmtl.records.schemas import read_table
from simulations.studies.columns import diverged_words
from simulations.studies.overview import Overview, Place, higher_is_better
from simulations.studies.run import is_done, run_directory

_BEST = 5
_MOST = 8
_FAR_APART = 5.0
_FAR_ENDS = 4.0  # times apart, from which on the time axis is logarithmic

Curve = tuple[np.ndarray, np.ndarray]
"""Times, shape [times], and values, shape [seeds, times]."""


@styled
def draw_curves(whole: Overview, place: Place, out: Path) -> Figure | None:
    """A panel for each task; None if no run of the place has finished."""
    curves = {label: found for label in whole.labels if (found := _read(whole, place, label, out))}
    if not curves:
        return None
    looks, tasks = _looks(whole, _chosen(whole, place, list(curves))), whole.tasks_at(place)
    columns = min(2, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure, panels = new_figure(0.6 + 0.25 * math.ceil((len(looks) + 1) / 4) + 3.2 * rows, rows, columns)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    lost = {label: count for label in looks if (count := whole.diverged(place, label))}
    for panel, (task, metric) in zip(panels, tasks.items(), strict=False):
        here = {label: found[task] for label, found in curves.items() if task in found}
        _draw_panel(panel, here, looks)
        sound = [here[label] for label in looks if label in here and label not in lost]
        _finish_panel(panel, task, metric, sound or [here[label] for label in looks if label in here])
    names = {label: f"{label}, {diverged_words(n, whole.runs(place, label))}" for label, n in lost.items()}
    handles = [Line2D([], [], label=names.get(label, label), **look) for label, look in looks.items()]
    if len(curves) > len(looks):
        handles.append(Line2D([], [], label=f"the other {len(curves) - len(looks)}", **_OTHERS))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


_OTHERS: dict[str, Any] = {"color": GREY, "linewidth": 0.7, "alpha": 0.6}


def _chosen(whole: Overview, place: Place, there: Sequence[str]) -> list[str]:
    """The best and the highlighted labels, by rank; all if they are few."""
    order = [label for label in whole.by_rank(list(whole.tasks_at(place)), [place]) if label in there]
    if len(order) <= _MOST:
        return order
    wanted = [label for label in whole.study.highlight if label in order and label not in order[:_BEST]]
    return [label for label in order if label in (*order[:_BEST], *wanted[: _MOST - _BEST])]


def _looks(whole: Overview, shown: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The look of each label: the same in every place, where labels are so few that all are shown."""
    order = whole.labels if len(whole.labels) <= _MOST else shown
    return {label: line_look(order.index(label)) for label in shown}


def _read(whole: Overview, place: Place, label: str, out: Path) -> dict[str, Curve]:
    """For each task the metric on the test set of all seeds that have finished, at common times."""
    compared, *others = whole.study.axes
    labels = {compared: label, **dict(zip(others, place, strict=True))}
    seeds: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for cell in whole.cells[tuple(labels[name] for name in whole.study.axes)]:
        if not is_done(out, cell):
            continue
        table = read_table(run_directory(out, cell), "evaluations")
        table = table.filter(pc.and_(pc.equal(table["group"], "test"), pc.not_equal(table["metric"], "loss")))
        for task in whole.tasks_at(place):
            mine = table.filter(pc.equal(table["task"], task))
            seeds.setdefault(task, []).append((mine["time"].to_numpy(), mine["value"].to_numpy()))
    return {task: curve for task, runs in seeds.items() if (curve := common_times(runs)) is not None}


def common_times(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Curve | None:
    """Curves of several runs, interpolated at all times at which any of them was evaluated and none had ended.

    Parameters
    ----------
    runs
        Times in ascending order and values of each, shape [evaluations]; of two values at one time the later holds.

    Returns
    -------
    Times, shape [times], and values, shape [runs, times]; None where the runs have no time in common.
    """
    runs = [(times, values) for times, values in runs if times.size]
    if not runs:
        return None
    start, end = max(times[0] for times, _ in runs), min(times[-1] for times, _ in runs)
    grid = np.unique(np.concatenate([times for times, _ in runs]))
    grid = grid[(grid >= start) & (grid <= end)]
    if not grid.size:
        return None
    return grid, np.stack([_interpolated(grid, times, values) for times, values in runs])


def _interpolated(grid: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    last = np.append(times[1:] > times[:-1], True)
    found: np.ndarray = np.interp(grid, times[last], values[last])
    return found


def _draw_panel(panel: Axes, curves: Mapping[str, Curve], looks: Mapping[str, dict[str, Any]]) -> None:
    """Draw the curves; those shown, as means over their bands."""
    for label, (times, values) in curves.items():
        if label not in looks:
            panel.plot(times, values.mean(0), zorder=1.5, **_OTHERS)
    for label, look in looks.items():
        if label not in curves:
            continue
        times, values = curves[label]
        panel.plot(times, values.mean(0), zorder=3, **with_points(look, times.size))
        panel.fill_between(times, values.min(0), values.max(0), color=look["color"], alpha=0.12, linewidth=0, zorder=2)


def _finish_panel(panel: Axes, task: str, metric: str, held: Sequence[Curve]) -> None:
    """Title and axes, which hold these curves with their bands."""
    panel.set_title(task)
    panel.set_xlabel("virtual time (s)")
    ends = [times[-1] for times, _ in held if times.size]
    if ends and max(ends) > _FAR_ENDS * min(ends) > 0:
        panel.set_xscale("log")
        panel.set_xlim(left=min(ends) / 50)
    higher = higher_is_better(metric)
    panel.set_ylabel(f"{metric} {'↑' if higher else '↓'}")
    panel.margins(x=0.01)
    every = np.concatenate([values[np.isfinite(values)] for _, values in held])
    if higher or not every.size:
        return
    # Errors that explode would press everything else onto the axis.
    low, high = every.min(), every.max()
    if 0 < _FAR_APART * low < high:
        log_scale(panel)
        panel.set_ylim(low / 1.2, high * 1.2)
    else:
        panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
