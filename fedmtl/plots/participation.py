"""What a client's speed makes of it: how often it takes part, what its updates weigh, and how stale they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedmtl.plots.jobs import evenly
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, GREY, log_scale, new_figure, styled

_CLIENTS = 2000
_BARS = 300
"""Clients up to which the spread of their staleness is shown, too."""
_FAR_APART = 5.0
_HALVES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("faster half of the clients", {"color": COLOURS[0], "marker": "o"}),
    ("slower half of the clients", {"color": COLOURS[1], "marker": "^"}),
)


@styled
def draw(run: RunTables) -> Figure | None:
    """Three panels over the seconds of a client's device, a point per client; None unless convergence was recorded."""
    applied = run.applied
    if not run.convergence or not applied.num_rows:
        return None
    client, staleness = applied["client"].to_numpy(), applied["staleness"].to_numpy()
    seconds, axis = _seconds(run)
    total = len(seconds)
    updates = np.bincount(client, minlength=total)
    heard = int(np.isfinite(seconds).sum())
    by_speed = np.argsort(seconds, kind="stable")[:heard]
    shown = evenly(by_speed, _CLIENTS)
    active = shown[updates[shown] > 0]
    devices = run.seconds()
    everybody = heard if devices is None else len(devices)
    halves = _HALVES[:1] if devices is not None and np.ptp(devices) == 0 else _HALVES
    slow = np.zeros(total, dtype=bool)
    if len(halves) > 1:
        slow[by_speed[heard // 2 :]] = True
    share = 100.0 * updates / updates.sum()
    weight = np.bincount(client, _relative_weights(run), minlength=total) / np.maximum(updates, 1)
    mean = np.bincount(client, staleness, minlength=total) / np.maximum(updates, 1)

    figure, panels = new_figure(4.6, 1, 3)
    for panel, values in zip(panels, (share, weight, mean), strict=True):
        for late, (_, look) in enumerate(halves):
            mine = active[slow[active] == bool(late)]
            size = 4 if len(active) > _BARS else 5.5
            panel.plot(seconds[mine], values[mine], linestyle="", markersize=size, alpha=0.65, zorder=3, **look)
    panels[0].axhline(100.0 / everybody, color=GREY, linestyle="--", linewidth=1.2)
    panels[1].axhline(1.0, color=GREY, linestyle="--", linewidth=1.2)
    if len(active) <= _BARS:
        order = np.argsort(client, kind="stable")
        parts = np.split(staleness[order], np.cumsum(updates)[:-1])
        spread = np.array([np.percentile(parts[number], [10, 90]) for number in active])
        panels[2].vlines(seconds[active], *spread.T, color=GREY, linewidth=1.0, alpha=0.6, zorder=2)
    titles = ("share of the updates (%)", "weight / mean of its step", "staleness (versions)")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=11)
        panel.set_xlabel(axis)
        _seconds_axis(panel, seconds[shown])
    if share[active].max() > _FAR_APART * share[active].min():
        log_scale(panels[0])
    for panel in panels:
        if panel.get_yscale() == "linear":
            panel.set_ylim(0.0, 1.05 * panel.get_ylim()[1])
    names = [name for name, _ in halves] if len(halves) > 1 else ["clients, all as fast"]
    looks = [look for _, look in halves]
    handles = [
        Line2D([], [], linestyle="", markersize=7, label=name, **look) for name, look in zip(names, looks, strict=True)
    ]
    handles += [Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="all alike")]
    if len(active) <= _BARS:
        handles += [Line2D([], [], color=GREY, linewidth=1.0, label="middle 80 % of its updates")]
    if note := _note(len(shown), heard, len(shown) - len(active) + everybody - heard):
        figure.supxlabel(note, fontsize=10)
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def _seconds(run: RunTables) -> tuple[np.ndarray, str]:
    """What each client takes for the same work, by number, and what that is; NaN of clients nobody heard of."""
    known = run.seconds()
    if known is not None and np.ptp(known) > 0:
        return known, "device's seconds for the same work"
    client = run.updates["client"].to_numpy()
    duration = run.updates["arrived_at"].to_numpy() - run.updates["dispatched_at"].to_numpy()
    jobs = np.bincount(client)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.bincount(client, duration) / np.where(jobs > 0, jobs, np.nan)
    return mean, "mean seconds of a job"


def _relative_weights(run: RunTables) -> np.ndarray:
    """The weight of each applied update over the mean weight in its step; 1 in a step whose weights are all zero."""
    applied = run.applied
    weight = np.abs(pc.fill_null(applied["weight"], 0.0).to_numpy())
    _, step = np.unique(applied["applied_version"].to_numpy(), return_inverse=True)
    mean = (np.bincount(step, weight) / np.bincount(step))[step]
    relative: np.ndarray = np.divide(weight, mean, out=np.ones_like(weight), where=mean > 0)
    return relative


def _seconds_axis(panel: Axes, seconds: np.ndarray) -> None:
    if seconds.min() > 0 and seconds.max() > _FAR_APART * seconds.min():
        log_scale(panel, "x")


def _note(shown: int, clients: int, never: int) -> str:
    """What of the clients the points leave out."""
    parts = [f"{shown:,} of {clients:,} clients, evenly chosen by speed"] if shown < clients else []
    parts += [f"{never:,} clients had no update in any version"] if never else []
    return "; ".join(parts)
