"""Dot plots with a row for each label and a panel for each place: final values, and times to targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fedmtl.intervals import interval
from fedmtl.plots.style import COLOURS, DPI, GREY, WIDTH, log_ticks, styled
from simulations.studies.columns import diverged_words
from simulations.studies.overview import DELTA_M, Overview, Place, higher_is_better, place_name

_COLUMNS = 4
"""Panels side by side, at most."""
_LINES = 60
"""Labels in a figure, at most, over all its rows of panels; one row may have more."""
_FAR_APART = 5.0
_SMALL = 8.5

Row = tuple[Place, str, list[Place]]
"""Labels of the outer axes, a measure, and the places of the panels."""

_Draw = Callable[[Overview, str, Sequence[Place], Sequence[Axes]], None]


def final_pages(whole: Overview) -> Iterator[tuple[str, Figure]]:
    """Final values: a figure for each combination of all but the first and the last axis, or also for each task."""
    legend = [
        Line2D([], [], color=COLOURS[0], marker="o", markersize=6, label="mean and 95 % interval"),
        Line2D([], [], color=COLOURS[1], marker="D", linestyle="", label="worst tenth of the clients", **_WORST),
    ]
    for name, rows in _pages(whole, list(whole.measures)):
        yield name, _draw_page(whole, rows, legend, _finals)


def target_pages(whole: Overview) -> Iterator[tuple[str, Figure]]:
    """Times to targets, for the tasks that have one, laid out in the same way."""
    legend = [
        Line2D([], [], color=COLOURS[0], marker="o", markersize=6, linestyle="", label="geometric mean"),
        Line2D([], [], color=GREY, marker="o", markersize=3, linestyle="", label="a seed"),
    ]
    for name, rows in _pages(whole, [task for task in whole.tasks if task in whole.study.targets]):
        yield name, _draw_page(whole, rows, legend, _times)


def _pages(whole: Overview, measures: Sequence[str]) -> Iterator[tuple[str, list[Row]]]:
    apart = len(measures) * len(whole.labels) > _LINES
    for outer in dict.fromkeys(place[:-1] for place in whole.places):
        inner = [place for place in whole.places if place[:-1] == outer]
        width = math.ceil(len(inner) / math.ceil(len(inner) / _COLUMNS))
        parts = [inner[start : start + width] for start in range(0, len(inner), width)]
        here = {measure for place in inner for measure in whole.measures_at(place)}
        rows = [(outer, measure, part) for measure in measures if measure in here for part in parts]
        if not rows:
            continue
        if not apart:
            yield place_name(outer), rows
            continue
        for measure in dict.fromkeys(measure for _, measure, _ in rows):
            yield ", ".join([*outer, measure]), [row for row in rows if row[1] == measure]


@styled
def _draw_page(whole: Overview, rows: Sequence[Row], legend: Sequence[Line2D], draw: _Draw) -> Figure:
    height = 0.4 + len(rows) * (1.0 + 0.21 * len(whole.labels))
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (outer, measure, places) in zip(parts, rows, strict=True):
        panels = part.subplots(1, len(places), squeeze=False, sharey=True)[0]
        for panel, place in zip(panels, places, strict=True):
            panel.set_title(place[-1] if place else "", fontsize=11)
        draw(whole, measure, places, panels)
        part.suptitle(
            _title(whole, outer, measure, goal=draw is _times), x=0.01, ha="left", fontsize=12, fontweight="bold"
        )
    figure.legend(handles=list(legend), loc="outside upper right", ncols=len(legend), fontsize=10)
    return figure


def _title(whole: Overview, outer: Place, measure: str, *, goal: bool) -> str:
    if measure == DELTA_M:
        return " · ".join([*outer, "delta-m ↓, per cent"])
    metric = whole.measures[measure]
    if goal:
        sign = "≥" if higher_is_better(metric) else "≤"
        return " · ".join([*outer, f"{measure}: time to {metric} {sign} {whole.study.targets[measure]:g}"])
    return " · ".join([*outer, f"{measure}: {metric} {'↑' if higher_is_better(metric) else '↓'}"])


def _finals(whole: Overview, measure: str, places: Sequence[Place], panels: Sequence[Axes]) -> None:
    order = _by_mean(whole, measure)
    dots: list[float] = []
    bars: list[tuple[Axes, int, float, float]] = []
    for panel, place in zip(panels, places, strict=True):
        for row, label in enumerate(order):
            values = whole.finals(measure, place, label)
            if not values.size:
                _remark(panel, row, "no run", "left")
                continue
            if not np.isfinite(values).all():
                _remark(panel, row, diverged_words(int((~np.isfinite(values)).sum()), values.size), "right")
                continue
            mean, half = interval(values.tolist())
            dots += [mean, *_worst(panel, row, whole.column(measure, place, label, "worst_clients"))]
            if math.isfinite(half):
                bars.append((panel, row, mean - half, mean + half))
            _dot(panel, mean, row, whole=values.size == len(whole.study.seeds))
    _label_rows(panels, order)
    ends = [end for _, _, *bar in bars for end in bar]
    least = _value_axis(panels, dots, ends, errors=measure != DELTA_M and not higher_is_better(whole.measures[measure]))
    for panel, row, low, high in bars:
        panel.plot([max(low, least), high], [row, row], color=COLOURS[0], linewidth=1.6, alpha=0.5, zorder=2)
        if low < least:
            panel.plot(least, row, color=COLOURS[0], marker="<", markersize=4, alpha=0.5, zorder=2)


_WORST: dict[str, Any] = {"markerfacecolor": "none", "markersize": 4, "markeredgewidth": 1.2}


def _worst(panel: Axes, row: int, values: np.ndarray) -> list[float]:
    """Mark the mean over the worst clients; what was marked."""
    if not values.size or not np.isfinite(values.mean()):
        return []
    panel.plot(values.mean(), row, marker="D", color=COLOURS[1], zorder=2.5, **_WORST)
    return [float(values.mean())]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _by_mean(whole: Overview, measure: str) -> list[str]:
    """The labels, the best mean over all places first; where some places are missing, it is over the others.

    Means are taken from the median of each place, so that a label does not gain by missing where all are bad; labels of
    which a run diverged come last.
    """
    means = np.array([[_mean(whole.finals(measure, p, b)) for p in whole.places] for b in whole.labels])
    diverged = np.array([any(whole.diverged(place, label) for place in whole.places) for label in whole.labels])
    means[~np.isfinite(means)] = np.nan
    known = [column[np.isfinite(column)] for column in means.T]
    means -= [np.median(column) if column.size else 0.0 for column in known]
    sign = -1 if higher_is_better(whole.measures[measure]) else 1
    scores = [sign * row[np.isfinite(row)].mean() if np.isfinite(row).any() else math.inf for row in means]
    return [whole.labels[index] for index in np.lexsort((np.array(scores), diverged))]


def _value_axis(panels: Sequence[Axes], dots: Sequence[float], ends: Sequence[float], *, errors: bool) -> float:
    """Hold all dots and all intervals; errors that lie far apart go on a logarithmic axis.

    Returns
    -------
    float
        What a bar must not go below. A logarithmic axis has no 0, so it ends a decade below the least dot.
    """
    if not dots:
        return -math.inf
    low, high = min(dots), max(dots)
    if errors and 0 < _FAR_APART * low < high:
        least = max(min([low, *ends]), low / 10)
        _log_axis(panels, *_widened_by_ratio(least, max([high, *ends])))
        return least
    low, high = min([low, *ends]), max([high, *ends])
    margin = 0.05 * (high - low) or 0.05
    for panel in panels:
        panel.set_xlim(low - margin, high + margin)
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    return -math.inf


def _widened_by_ratio(low: float, high: float) -> tuple[float, float]:
    margin = (high / low) ** 0.05
    return low / margin, high * margin


def _times(whole: Overview, task: str, places: Sequence[Place], panels: Sequence[Axes]) -> None:
    order = whole.by_rank([task], whole.places, "time_to_target")
    for panel, place in zip(panels, places, strict=True):
        times = [whole.column(task, place, label, "time_to_target") for label in order]
        diverged = [whole.diverged(place, label) for label in order]
        _time_panel(panel, times, diverged, len(whole.study.seeds))
        panel.set_xlabel("virtual time (s)")
    _label_rows(panels, order)


def _time_panel(panel: Axes, rows: Sequence[np.ndarray], diverged: Sequence[int], seeds: int) -> None:
    there = np.concatenate([times[np.isfinite(times)] for times in rows])
    positive = there[there > 0]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 1.0)
    edge = low / 1.5 if there.size > positive.size else low  # where times of 0 are shown
    for row, times in enumerate(rows):
        _time_row(panel, row, times, edge, seeds)
        _absent(panel, row, times, diverged[row])
    if high < 2 * edge:
        edge, high = math.sqrt(edge * high / 2), math.sqrt(edge * high * 2)
    span = high / edge
    # The counts of those that never got there take the right third.
    never = any(times.size and not np.isfinite(times).all() for times in rows)
    right = high * span ** (0.65 if never else 0.06)
    _log_axis([panel], edge / span**0.06, right, last=high * span**0.06)
    if never:
        panel.axvspan(high * span**0.08, right, color="#F3F3F3", linewidth=0, zorder=0)


def _time_row(panel: Axes, row: int, times: np.ndarray, edge: float, seeds: int) -> None:
    if not times.size:
        _remark(panel, row, "no run", "left")
        return
    there = np.maximum(times[np.isfinite(times)], edge)
    if there.size:
        panel.plot(there, np.full(there.size, row), marker="o", markersize=3, linestyle="", color=GREY, zorder=2)
        _dot(panel, float(np.exp(np.log(there).mean())), row, whole=times.size == seeds)


def _absent(panel: Axes, row: int, times: np.ndarray, diverged: int) -> None:
    """Why runs have no time: they diverged, or never got there."""
    never = int((~np.isfinite(times)).sum()) - diverged
    counts = {"diverged": diverged, "never": never}
    if texts := [f"{what} ({count} of {times.size})" for what, count in counts.items() if count]:
        short = f"diverged ({diverged}), never ({never} of {times.size})"
        _remark(panel, row, short if len(texts) > 1 else texts[0], "right")


def _dot(panel: Axes, value: float, row: int, *, whole: bool) -> None:
    panel.plot(
        value,
        row,
        marker="o",
        markersize=6,
        color=COLOURS[0],
        markerfacecolor=COLOURS[0] if whole else "white",
        zorder=3,
    )


def _remark(panel: Axes, row: int, text: str, side: str) -> None:
    place = {"left": 0.02, "right": 0.98}[side]
    transform = panel.get_yaxis_transform()
    panel.text(place, row, text, transform=transform, ha=side, va="center", fontsize=_SMALL, color="#555555")


def _label_rows(panels: Sequence[Axes], order: Sequence[str]) -> None:
    panels[0].set_yticks(range(len(order)), order, fontsize=9)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    for panel in panels:
        panel.tick_params(axis="y", length=0)


def _log_axis(panels: Sequence[Axes], low: float, high: float, last: float = math.inf) -> None:
    """Logarithmic, with at most a few ticks at plain numbers, none of them beyond `last`."""
    ticks = log_ticks(low, min(last, high))
    for panel in panels:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(FixedLocator(ticks))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlim(low, high)
