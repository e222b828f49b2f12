"""What weights the balancer gave the tasks, over time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import line_look, new_figure, styled
from fedmtl.plots.windows import windows


@styled
def draw(run: RunTables) -> Figure | None:
    """The mean weight of each task over the uploads of a window, and their middle half; None without weights."""
    weights = per_task(run, "task_weights")
    if len(run.tasks) < 2 or not np.isfinite(weights).any():
        return None
    index, middles = windows(run.updates["arrived_at"].to_numpy())
    figure, (panel,) = new_figure(4.2)
    for number, task in enumerate(run.tasks):
        stats = np.full((3, len(middles)), np.nan)
        for window in range(len(middles)):
            values = weights[index == window, number]
            values = values[np.isfinite(values)]
            if values.size:
                stats[:, window] = values.mean(), *np.percentile(values, [25, 75])
        known = np.isfinite(stats[0])
        look = line_look(number)
        panel.plot(middles[known], stats[0, known], label=task["name"], **look)
        if len(run.tasks) <= 6:
            panel.fill_between(
                middles[known], stats[1, known], stats[2, known], color=look["color"], alpha=0.15, linewidth=0
            )
    panel.set_xlabel("time of arrival (s)")
    panel.set_ylabel("weight in the shared gradient")
    panel.margins(x=0.01)
    figure.legend(loc="outside right upper")
    return figure


def per_task(run: RunTables, column: str) -> np.ndarray:
    """A per-task column as an array [updates, tasks], NaN where an upload has no value."""
    lists = run.updates[column].combine_chunks()
    values: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(lists), len(run.tasks))
