"""What a study says, in pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedmtl.plots.style import line_look, new_figure, save, styled
from fedmtl.records.schemas import read_table
from fedmtl.records.summary import SUMMARY
from simulations.study import Cell, Study, run_directory


@styled
def draw(study: Study, out: Path) -> list[Path]:
    """A plot for each combination of the further axes: every task's metric against virtual time, a line per label.

    A line is the mean over the seeds, at the times of the first seed; the band reaches from the least to the largest.
    """
    compared, *others = study.axes
    paths = []
    for place in itertools.product(*(study.axes[name] for name in others)):
        wanted = dict(zip(others, place, strict=True))
        cells = [c for c in study.cells() if all(c.labels[name] == label for name, label in wanted.items())]
        curves = {
            label: _curves([c for c in cells if c.labels[compared] == label], out) for label in study.axes[compared]
        }
        tasks = list(dict.fromkeys(task for found in curves.values() for task in found))
        if not tasks:
            continue
        columns = min(2, len(tasks))
        rows = math.ceil(len(tasks) / columns)
        figure, panels = new_figure(3.6 * rows + 0.35 * math.ceil(len(curves) / 4), rows, columns)
        for panel, task in itertools.zip_longest(panels, tasks):
            if task is None:
                panel.set_visible(False)
                continue
            for index, (label, found) in enumerate(curves.items()):
                if task in found:
                    times, values = found[task]
                    panel.plot(times, values.mean(0), label=label, **line_look(index))
                    panel.fill_between(
                        times, values.min(0), values.max(0), color=line_look(index)["color"], alpha=0.12, linewidth=0
                    )
            panel.set_title(task)
            panel.set_xlabel("virtual time (s)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
        name = "-".join(place) or "all"
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
        paths.append(save(figure, out / "plots" / f"{safe}.png"))
    return paths


def _curves(cells: Sequence[Cell], out: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each task the times of the first seed, and the metric at those times, shape [seeds, times]."""
    found: dict[str, tuple[np.ndarray, list[np.ndarray]]] = {}
    for cell in cells:
        directory = run_directory(out, cell)
        if not (directory / SUMMARY).exists():
            continue
        rows = read_table(directory, "evaluations").to_pylist()
        for task in dict.fromkeys(row["task"] for row in rows):
            test = [r for r in rows if r["task"] == task and r["group"] == "test" and r["metric"] != "loss"]
            times, values = np.array([r["time"] for r in test]), np.array([r["value"] for r in test])
            grid, so_far = found.setdefault(task, (times, []))
            so_far.append(np.interp(grid, times, values))
    return {task: (times, np.stack(values)) for task, (times, values) in found.items()}
