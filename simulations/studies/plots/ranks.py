"""Mean ranks as heat maps: labels against places, and against tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmtl.plots.style import SHADES, WIDTH, new_figure, styled
from simulations.studies.overview import Overview

_COLUMNS = 18
"""Places in a picture, at most."""
_INCHES_PER_LETTER = 0.075


def rank_maps(whole: Overview, measure: str = "final") -> Iterator[tuple[str, Figure]]:
    """Labels against places, over all tasks, by a column of the results; several pictures if there are many places."""
    name = "ranks" if measure == "final" else f"ranks-{measure.replace('_', '-')}"
    tasks = list(whole.tasks)
    pages = [whole.places[start : start + _COLUMNS] for start in range(0, len(whole.places), _COLUMNS)]
    for number, places in enumerate(pages, start=1):
        columns = {"\n".join(place) or "all": whole.mean_rank(tasks, [place], measure) for place in places}
        diverged = [{b for b in whole.labels if whole.diverged(place, b)} for place in places]
        if len(places) > 1:
            columns["overall"] = whole.mean_rank(tasks, places, measure)
            diverged.append(set().union(*diverged))
        order = whole.by_rank(tasks, places, measure)
        yield name if len(pages) == 1 else f"{name}-{number}", _heat_map(columns, order, diverged)


def task_ranks(whole: Overview) -> Figure:
    """Labels against tasks, over all places; and delta-m, which is not part of the last column."""
    tasks = list(whole.tasks)
    columns = {measure: whole.mean_rank([measure], whole.places) for measure in whole.measures}
    columns["all tasks"] = whole.mean_rank(tasks, whole.places)
    diverged = {label for label in whole.labels if any(whole.diverged(place, label) for place in whole.places)}
    return _heat_map(columns, whole.by_rank(tasks, whole.places), [diverged] * len(columns))


@styled
def _heat_map(
    columns: Mapping[str, Mapping[str, float]], labels: Sequence[str], diverged: Sequence[Set[str]]
) -> Figure:
    """A cell for each label and column; the last column stands apart if there are several.

    Parameters
    ----------
    columns
        The ranks, by title and label.
    labels
        In the order in which they are shown.
    diverged
        For each column the labels whose rank has a star, since a run diverged.
    """
    ranks = np.array([[column[label] for column in columns.values()] for label in labels])
    beside = 0.3 + _INCHES_PER_LETTER * max(map(len, labels))
    room = min((WIDTH - beside - 1.2) / len(columns), 1.6)
    longest = max(len(line) for name in columns for line in name.split("\n"))
    flat = longest * _INCHES_PER_LETTER < room
    names = [name if flat else name.replace("\n", ", ") for name in columns]
    above = 0.2 + (0.2 * max(name.count("\n") + 1 for name in names) if flat else 0.075 * max(map(len, names)))
    figure, (panel,) = new_figure(0.6 + above + 0.23 * len(labels))
    stars = np.array([[label in column for column in diverged] for label in labels])
    _cells(figure, panel, ranks, stars, len(labels))
    panel.set_xticks(range(len(names)), names, rotation=0 if flat else 90, fontsize=9)
    panel.set_yticks(range(len(labels)), labels, fontsize=9)
    panel.tick_params(length=0, labeltop=True, labelbottom=False)
    return figure


def _cells(figure: Figure, panel: Axes, ranks: np.ndarray, stars: np.ndarray, most: int) -> None:
    image = panel.imshow(ranks, cmap=SHADES.reversed(), vmin=1, vmax=max(most, 2), aspect="auto")
    panel.set_facecolor("#DDDDDD")
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    for (row, column), rank in np.ndenumerate(ranks):
        if math.isfinite(rank):
            dark = rank < 1 + 0.45 * (most - 1)
            text, colour = f"{rank:.1f}{'*' if stars[row, column] else ''}", "white" if dark else "black"
            panel.text(column, row, text, ha="center", va="center", fontsize=8.5, color=colour)
    if ranks.shape[1] > 1:
        panel.axvline(ranks.shape[1] - 1.5, color="white", linewidth=6)
    figure.colorbar(image, ax=panel, label="mean rank", pad=0.01, aspect=40).ax.invert_yaxis()
