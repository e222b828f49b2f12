"""Each task's metric as the run went on, a panel per task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, GREY, line_look, log_scale, new_figure, styled

AXES = {"time": "time (s)", "version": "version of the global model"}

_GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "test": ("test set", {"color": COLOURS[6], "linewidth": 2.2, "zorder": 3}),
    "fast": ("faster half of the clients", {"color": COLOURS[0]}),
    "slow": ("slower half of the clients", {"color": COLOURS[1]}),
    "worst": ("worst tenth of the clients", {"color": GREY, "linestyle": "--"}),
}


@dataclass(frozen=True, eq=False)
class Curve:
    """A line in each panel: its label and look, and for each task its points."""

    label: str
    look: Mapping[str, Any]
    points: Sequence[tuple[np.ndarray, np.ndarray]]


def draw_by_time(run: RunTables) -> Figure | None:
    """The tasks' metrics against virtual time."""
    return _draw_groups(run, "time")


def draw_by_version(run: RunTables) -> Figure | None:
    """The tasks' metrics against the model's versions."""
    return _draw_groups(run, "version")


def draw_runs(runs: Mapping[str, RunTables], against: str) -> Figure | None:
    """The same tasks in several runs, on the test set, a line per run."""
    tasks = next(iter(runs.values())).tasks
    curves = [
        Curve(label, line_look(index), [run.curve(t["name"], t["metric"], "test", against) for t in tasks])
        for index, (label, run) in enumerate(runs.items())
    ]
    return draw_curves(tasks, curves, AXES[against])


def _draw_groups(run: RunTables, against: str) -> Figure | None:
    curves = [
        Curve(label, look, [run.curve(task["name"], task["metric"], group, against) for task in run.tasks])
        for group, (label, look) in _GROUPS.items()
    ]
    return draw_curves(run.tasks, curves, AXES[against])


@styled
def draw_curves(tasks: Sequence[Mapping[str, Any]], curves: Sequence[Curve], axis: str) -> Figure | None:
    """A panel per task with the same lines in each, and one legend for all; None if there are no points."""
    curves = [curve for curve in curves if any(len(x) for x, _ in curve.points)]
    if not curves:
        return None
    columns = min(len(tasks), 2 if len(tasks) <= 4 else 3 if len(tasks) <= 12 else 5)
    rows = math.ceil(len(tasks) / columns)
    legend_rows = math.ceil(len(curves) / 4)
    figure, panels = new_figure(
        0.5 + 0.25 * legend_rows + (3.0 if rows < 3 else 2.4) * rows, rows, columns, sharex=True
    )
    for panel, (index, task) in zip(panels, enumerate(tasks), strict=False):
        for curve in curves:
            panel.plot(*curve.points[index], label=curve.label, **curve.look)
        _finish_panel(panel, task, [curve.points[index][1] for curve in curves])
        panel.tick_params(labelbottom=index + columns >= len(tasks))
        if index + columns >= len(tasks):
            panel.set_xlabel(axis)
            panel.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=axis == AXES["version"]))
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    handles = {
        label: handle
        for p in panels[: len(tasks)]
        for handle, label in zip(*p.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(4, len(curves)))
    return figure


def _finish_panel(panel: Axes, task: Mapping[str, Any], values: Sequence[np.ndarray]) -> None:
    panel.set_title(task["name"])
    panel.set_ylabel(f"{task['metric']} {'↑' if task['higher_is_better'] else '↓'}")
    every = np.concatenate(list(values))
    every = every[np.isfinite(every)]
    # Errors fall by orders of magnitude, and what happens at the end is what is asked for.
    if not task["higher_is_better"] and every.size and every.min() > 0 and every.max() > 5 * every.min():
        log_scale(panel)
    panel.margins(x=0.01)
