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
from fedmtl.plots.style import COLOURS, GREY, line_look, log_scale, new_figure, styled, with_points

VERSION = "version of the global model"

_SECOND = "#555555"
_APART = 0.05
"""The least share of an axis between two ticks."""

_GROUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "test": ("test set", {"color": COLOURS[6], "linewidth": 2.2, "zorder": 3}),
    "fast": ("faster half of the clients", {"color": COLOURS[0]}),
    "slow": ("slower half of the clients", {"color": COLOURS[1]}),
    "worst": ("worst tenth of the clients", {"color": GREY, "linestyle": "--"}),
}


@dataclass(frozen=True, eq=False)
class Curve:
    """A line in each panel: its label and look, for each task its points, and whether it may go beyond the axes."""

    label: str
    look: Mapping[str, Any]
    points: Sequence[tuple[np.ndarray, np.ndarray]]
    beyond: bool = False


def draw(run: RunTables) -> Figure | None:
    """The tasks' metrics against time, with an axis of versions on top."""
    curves = [
        Curve(label, look, [run.curve(task["name"], task["metric"], group, "time") for task in run.tasks])
        for group, (label, look) in _GROUPS.items()
    ]
    return draw_curves(run.tasks, curves, f"{run.clock} (s)", versions=run.times_of_versions())


def draw_runs(runs: Mapping[str, RunTables], against: str) -> Figure | None:
    """The same tasks in several runs, on the test set, a line per run; axes hold those that did not diverge."""
    tasks = next(iter(runs.values())).tasks
    curves = [
        Curve(
            f"{label} (diverged)" if run.diverged else label,
            line_look(index),
            [run.curve(t["name"], t["metric"], "test", against) for t in tasks],
            beyond=run.diverged,
        )
        for index, (label, run) in enumerate(runs.items())
    ]
    (clock, *others) = dict.fromkeys(run.clock for run in runs.values())
    return draw_curves(tasks, curves, VERSION if against == "version" else f"{'time' if others else clock} (s)")


@styled
def draw_curves(
    tasks: Sequence[Mapping[str, Any]],
    curves: Sequence[Curve],
    axis: str,
    versions: tuple[np.ndarray, np.ndarray] | None = None,
) -> Figure | None:
    """A panel per task with the same lines in each, and one legend for all; None if there are no points.

    Parameters
    ----------
    tasks, curves
        The panels, and the lines in them.
    axis
        What the lines are against.
    versions
        Versions and when they were made, shape [versions] each, for a second axis above lines that are against time.
    """
    curves = [curve for curve in curves if any(len(x) for x, _ in curve.points)]
    if not curves:
        return None
    columns = min(len(tasks), 2 if len(tasks) <= 4 else 3 if len(tasks) <= 12 else 5)
    rows = math.ceil(len(tasks) / columns)
    legend_rows = math.ceil(len(curves) / 4)
    height = 0.5 + 0.25 * legend_rows + (3.0 if rows < 3 else 2.4) * rows + (0.0 if versions is None else 0.45)
    figure, panels = new_figure(height, rows, columns, sharex=True)
    for panel, (index, task) in zip(panels, enumerate(tasks), strict=False):
        for curve in curves:
            panel.plot(*curve.points[index], label=curve.label, **with_points(curve.look, len(curve.points[index][0])))
        held = [curve for curve in curves if not curve.beyond] or curves
        _finish_panel(panel, task, [curve.points[index][1] for curve in held], cut=len(held) < len(curves))
        panel.tick_params(labelbottom=index + columns >= len(tasks))
        if index + columns >= len(tasks):
            panel.set_xlabel(axis)
            panel.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=axis == VERSION))
        if versions is not None and index < columns:
            _axis_on_top(panel, *versions)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    # Not what matplotlib would gather by itself, which leaves out names that begin with an underscore.
    handles = {str(line.get_label()): line for panel in panels[: len(tasks)] for line in panel.get_lines()}
    figure.legend(handles=list(handles.values()), loc="outside upper center", ncols=min(4, len(curves)))
    return figure


def _axis_on_top(panel: Axes, versions: np.ndarray, times: np.ndarray) -> None:
    """A second axis with round numbers of versions where they were made, as far as they do not lie on each other."""
    span = float(times[-1] - times[0])
    if not 0 < span < math.inf:
        return
    wanted = MaxNLocator(8, steps=[1, 2, 5, 10], integer=True).tick_values(0, versions[-1])
    places: dict[int, float] = {}
    for version in wanted[wanted <= versions[-1]].astype(int).tolist():
        place = float(np.interp(version, versions, times))
        if not places or place - max(places.values()) > _APART * span:
            places[version] = place
    top = panel.secondary_xaxis("top")
    top.set_xticks(list(places.values()), [f"{version}" for version in places])
    top.set_xlabel(VERSION, color=_SECOND)
    top.tick_params(colors=_SECOND)
    top.spines["top"].set_color(GREY)


def _finish_panel(panel: Axes, task: Mapping[str, Any], values: Sequence[np.ndarray], *, cut: bool) -> None:
    panel.set_title(task["name"])
    panel.set_ylabel(f"{task['metric']} {'↑' if task['higher_is_better'] else '↓'}")
    every = np.concatenate(list(values))
    every = every[np.isfinite(every)]
    # Errors fall by orders of magnitude, and what happens at the end is what is asked for.
    if not task["higher_is_better"] and every.size and every.min() > 0 and every.max() > 5 * every.min():
        log_scale(panel)
    panel.margins(x=0.01)
    if cut and every.size:
        low, high = float(every.min()), float(every.max())
        if panel.get_yscale() == "log":
            panel.set_ylim(low / 1.1, high * 1.1)
        else:
            margin = 0.05 * (high - low) or 0.05
            panel.set_ylim(low - margin, high + margin)
