"""What weights the balancer gave the tasks, over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import SEQUENTIAL, line_look, log_scale, new_figure, styled, with_points
from fedmtl.plots.windows import windows

_LINES = 10
_FAR_APART = 20  # a linear axis would press the smaller weights into one line


@styled
def draw(run: RunTables) -> Figure | None:
    """The mean weight of each task over the uploads of a window; None without weights.

    Few tasks are lines with a band for the middle half of the uploads, many are the rows of a heat map.
    """
    weights = per_task(run, "task_weights")
    if len(run.tasks) < 2 or not np.isfinite(weights).any():
        return None
    index, middles = windows(run.updates["arrived_at"].to_numpy())
    names = [task["name"] for task in run.tasks]
    stats = np.stack([_statistics(weights[:, task], index, len(middles)) for task in range(len(names))])
    figure = _lines(names, middles, stats) if len(names) <= _LINES else _rows(names, middles, stats[:, 0])
    figure.axes[0].set_xlabel(f"{run.clock} of arrival (s)")
    return figure


def per_task(run: RunTables, column: str) -> np.ndarray:
    """A per-task column as an array [updates, tasks], NaN where an upload has no value."""
    lists = run.updates[column].combine_chunks()
    values: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(lists), len(run.tasks))


def _statistics(values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """Mean, lower and upper quartile in each window, shape [3, windows]; NaN in windows without values."""
    stats = np.full((3, count), np.nan)
    for window in range(count):
        part = values[index == window]
        part = part[np.isfinite(part)]
        if part.size:
            stats[:, window] = part.mean(), *np.percentile(part, [25, 75])
    return stats


def _lines(names: Sequence[str], middles: np.ndarray, stats: np.ndarray) -> Figure:
    figure, (panel,) = new_figure(4.2)
    for number, (name, (mean, low, high)) in enumerate(zip(names, stats, strict=True)):
        known = np.isfinite(mean)
        look = line_look(number)
        panel.plot(middles[known], mean[known], label=name, **with_points(look, int(known.sum())))
        panel.fill_between(middles[known], low[known], high[known], color=look["color"], alpha=0.15, linewidth=0)
    panel.set_ylabel("weight in the shared gradient")
    low, high = np.nanmin(stats[:, 0]), np.nanmax(stats[:, 0])
    if 0 < _FAR_APART * low < high:
        log_scale(panel)
    panel.margins(x=0.01)
    figure.legend(handles=panel.get_lines(), loc="outside right upper")
    return figure


def _rows(names: Sequence[str], middles: np.ndarray, mean: np.ndarray) -> Figure:
    figure, (panel,) = new_figure(1.2 + 0.2 * len(names))
    image = panel.pcolormesh(
        middles, np.arange(len(names)), np.ma.masked_invalid(mean), cmap=SEQUENTIAL, shading="nearest"
    )
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.invert_yaxis()
    panel.grid(visible=False)
    figure.colorbar(image, ax=panel, label="weight in the shared gradient", pad=0.01)
    return figure
