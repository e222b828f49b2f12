"""How far clients drift and disagree, beside what the model can do meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, FEW, GREY, line_look, log_scale, new_figure, styled, with_points
from fedmtl.plots.windows import windows

_LINES = 10
"""Tasks that have lines of their own; of more, the middle is shown."""
_POINTS = 3000
_LEAST = 8
"""Versions in a window, at least on average."""

_MEASURES = (
    ("drift", "clients' drift /\nlength of model", None),
    ("dissimilarity", "dissimilarity\nof updates", 1.0),
    ("pair_cosine", "cosine between\nclients' updates", 0.0),
)
"""Column, label, and the value that a line marks: updates that are all alike, and such as are at right angles."""


@styled
def draw(run: RunTables) -> Figure | None:
    """Panels above one axis of time: the metrics on the test set, and below how far clients drift and differ.

    None unless the run recorded convergence and made a version. Dots are versions, lines means over windows of time.
    """
    table = run.aggregations
    if not run.convergence or not table.num_rows:
        return None
    times = table["time"].to_numpy()
    known = [(table[column].to_numpy(zero_copy_only=False), *look) for column, *look in _MEASURES]
    known = [entry for entry in known if np.isfinite(entry[0]).any()]
    metrics = list(dict.fromkeys(task["metric"] for task in run.tasks))
    heights = [1.25] * len(metrics) + [1.0] * len(known)
    figure, panels = new_figure(1.2 + 1.4 * sum(heights), len(heights), 1, sharex=True, height_ratios=heights)
    handles = _metrics(panels[: len(metrics)], run, metrics)
    for panel, (values, label, mark) in zip(panels[len(metrics) :], known, strict=True):
        _measure(panel, times, values, mark)
        panel.set_ylabel(label)
    panels[-1].set_xlabel(f"{run.clock} (s)")
    panels[0].margins(x=0.01)
    if len(times) > _POINTS:
        panels[len(metrics)].set_title(f"{_POINTS:,} of {len(times):,} versions are dots, evenly chosen", fontsize=10)
    handles.append(Line2D([], [], linestyle="", marker=".", color=GREY, label="a version"))
    if len(times) > FEW:
        handles.append(Line2D([], [], color=COLOURS[6], label="mean over a window of time"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    figure.align_ylabels(panels)
    return figure


def _metrics(panels: Sequence[Axes], run: RunTables, metrics: Sequence[str]) -> list[Any]:
    """A panel per metric with its tasks' curves; the entries of the legend."""
    handles: list[Any] = []
    for panel, metric in zip(panels, metrics, strict=True):
        tasks = [(place, task) for place, task in enumerate(run.tasks) if task["metric"] == metric]
        panel.set_ylabel(f"{metric} {'↑' if tasks[0][1]['higher_is_better'] else '↓'}")
        curves = [run.curve(task["name"], metric, "test", "time") for _, task in tasks]
        if len(run.tasks) <= _LINES:
            for (place, task), (x, y) in zip(tasks, curves, strict=True):
                handles += panel.plot(x, y, label=task["name"], **with_points(line_look(place), len(x)))
        else:
            handles += _middle(panel, tasks[0][0], metric, curves)
        values = np.concatenate([y for _, y in curves])
        values = values[np.isfinite(values)]
        falls = not tasks[0][1]["higher_is_better"]
        if falls and values.size and values.min() > 0 and values.max() > 5 * values.min():
            log_scale(panel)
    return handles


def _middle(panel: Axes, place: int, metric: str, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Any]:
    """Median and middle half of very many tasks' curves, which were all taken at the same times."""
    x, values = curves[0][0], np.stack([y for _, y in curves])
    low, median, high = np.percentile(values, [25, 50, 75], axis=0)
    look: Mapping[str, Any] = line_look(place)
    label = f"median of {len(curves)} tasks ({metric})"
    lines = panel.plot(x, median, label=label, **with_points(look, len(x)))
    panel.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
    return [*lines, Patch(color=look["color"], alpha=0.15, label="their middle half")]


def _measure(panel: Axes, times: np.ndarray, values: np.ndarray, mark: float | None) -> None:
    few = np.unique(np.linspace(0, len(times) - 1, min(len(times), _POINTS)).round().astype(np.int64))
    panel.plot(times[few], values[few], linestyle="", marker=".", markersize=3.5, color=GREY, alpha=0.6)
    there = np.isfinite(values)
    shown = values[there]
    panel.plot(*_course(times, values), color=COLOURS[6])
    if shown.min() > 0 and shown.max() > 20 * shown.min():
        log_scale(panel)
    if mark is not None:
        panel.axhline(mark, color=GREY, linewidth=0.9, linestyle="--", zorder=0)


def _course(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over windows of time; of few versions, the values themselves. Where there are none it is NaN: a gap."""
    if len(times) <= FEW:
        return times, values
    index, middles = windows(times, least=_LEAST)
    there = np.isfinite(values)
    counts = np.bincount(index[there], minlength=len(middles))
    sums = np.bincount(index[there], values[there], minlength=len(middles))
    return middles, np.divide(sums, counts, out=np.full(len(middles), np.nan), where=counts > 0)
