"""Who trained for which server step, and which updates waited for it: groups and buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fedmtl.plots.jobs import box, by_speed, evenly
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, names_of, new_figure, styled

_STEPS = 6
"""Server steps that are looked at: each has a colour of its own."""
_ROWS = 40
_OTHER = "#D5D5D5"
_PALE = (COLOURS[3], COLOURS[4], COLOURS[5])
"""Those on which black is read more easily than white."""
_AT_THE_END = "flush"
"""The trigger of a step that is made only because the run ends."""
_WAITING = 0.26
"""Height of the bar of an update that waits; that of a job is 0.76."""


@dataclass(frozen=True, eq=False)
class _Jobs:
    """Uploads, an entry each: the client, when the order was sent, the update came and its step was made, and which.

    `step` is 0 and `made` infinite where there was none.
    """

    client: np.ndarray
    sent: np.ndarray
    arrived: np.ndarray
    made: np.ndarray
    step: np.ndarray
    late: np.ndarray


@styled
def draw(run: RunTables) -> Figure | None:
    """A row per client with a bar per job and a thin one while its update waited; below, how many updates waited.

    It shows some steps one after the other, those of more updates than others first, and of their clients an even
    sample by speed. None unless the run recorded convergence, and made a step of several updates.
    """
    steps = _chosen(run) if run.convergence else []
    if not steps:
        return None
    jobs = _jobs(run)
    end = float(run.aggregations["time"][steps[-1] - _first(run)].as_py())
    ours = np.isin(jobs.step, steps)
    order = by_speed(run, jobs.client, jobs.arrived - jobs.sent)
    members = order[np.isin(order, jobs.client[ours])]
    shown = evenly(members, _ROWS)
    start = float(jobs.sent[ours & np.isin(jobs.client, shown)].min())

    figure, (panel, below) = new_figure(
        3.4 + 0.17 * max(len(shown), 12), 2, 1, sharex=True, height_ratios=[0.17 * max(len(shown), 12), 1.1]
    )
    _bars(panel, jobs, steps, shown, (start, end))
    panel.set_yticks(range(len(shown)), names_of(shown.tolist(), run.client_names), fontsize=8)
    panel.set_ylabel("client, fastest on top")
    panel.grid(visible=False, axis="y")
    panel.set_title(_title(steps, run, len(shown), len(members)))
    _waiting(below, jobs, start, end)
    below.set_xlabel(f"{run.clock} (s)")
    for number, step in enumerate(steps):
        made = float(run.aggregations["time"][step - _first(run)].as_py())
        for part in (panel, below):
            part.axvline(made, color=COLOURS[number], linewidth=1.4, zorder=0)
    margin = 0.01 * (end - start) or 0.5
    below.set_xlim(start - margin, end + margin)
    figure.legend(handles=_legend(run, jobs, steps, ours), loc="outside upper center", ncols=3, fontsize=9.5)
    return figure


def _first(run: RunTables) -> int:
    """The version of the first row of the aggregations, whose rows follow one another."""
    return int(run.aggregations["version"][0].as_py())


def _chosen(run: RunTables) -> list[int]:
    """The versions to look at: one after the other with the most updates, in the middle of the run if all are alike."""
    table = run.aggregations
    several = pc.and_(pc.greater(table["size"], 1), pc.not_equal(table["trigger"], _AT_THE_END))
    versions, sizes = (table.filter(several)[name].to_numpy() for name in ("version", "size"))
    if not len(versions):
        return []
    count = min(_STEPS, len(versions))
    sums = np.convolve(sizes, np.ones(count), "valid")
    best = np.flatnonzero(sums == sums.max())
    begin = int(best[np.abs(best - (len(sums) - 1) / 2).argmin()])
    return [int(version) for version in versions[begin : begin + count]]


def _jobs(run: RunTables) -> _Jobs:
    table = run.updates
    step = pc.fill_null(table["applied_version"], 0).to_numpy()
    times = run.aggregations["time"].to_numpy()
    made = np.where(step > 0, times[np.maximum(step - _first(run), 0)], np.inf)
    gone = table["rejected"].is_valid().to_numpy()  # a rejected update waits for nothing
    client, sent, arrived = (table[name].to_numpy() for name in ("client", "dispatched_at", "arrived_at"))
    return _Jobs(client, sent, arrived, np.where(gone, arrived, made), step, table["late"].to_numpy())


def _bars(panel: Axes, jobs: _Jobs, steps: Sequence[int], shown: np.ndarray, span: tuple[float, float]) -> None:
    row = {int(client): number for number, client in enumerate(shown)}
    seen = np.isin(jobs.client, shown) & (jobs.sent < span[1]) & (np.minimum(jobs.made, span[1]) > span[0])
    until = np.minimum(jobs.made, span[1])
    looks = [(seen & ~np.isin(jobs.step, steps), _OTHER)]
    looks += [(seen & (jobs.step == step), COLOURS[number]) for number, step in enumerate(steps)]
    for chosen, colour in looks:
        for late in (False, True):
            rows = np.flatnonzero(chosen & (jobs.late == late))
            bars = [box(jobs.sent[i], jobs.arrived[i], row[int(jobs.client[i])]) for i in rows]
            hatch = "/////" if late and colour != _OTHER else None
            panel.add_collection(
                PolyCollection(bars, facecolor=colour, edgecolor="white", linewidth=0.5, hatch=hatch, zorder=2)
            )
            waits = [box(jobs.arrived[i], until[i], row[int(jobs.client[i])], _WAITING) for i in rows]
            panel.add_collection(PolyCollection(waits, facecolor=colour, linewidth=0, zorder=2))
    wide = 0.035 * (span[1] - span[0])
    for i in np.flatnonzero(seen & np.isin(jobs.step, steps)):
        left, right = max(jobs.sent[i], span[0]), min(jobs.arrived[i], span[1])
        if right - left > wide:
            place = (left + right) / 2, row[int(jobs.client[i])]
            colour = COLOURS[steps.index(int(jobs.step[i]))]
            panel.text(
                *place,
                f"{jobs.step[i]}",
                ha="center",
                va="center_baseline",
                fontsize=7,
                color="black" if colour in _PALE else "white",
                zorder=3,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.0} if jobs.late[i] else None,
            )
    panel.set_ylim(len(shown) - 0.4, -0.6)


def _waiting(panel: Axes, jobs: _Jobs, start: float, end: float) -> None:
    """How many updates of all clients had arrived and not gone into a step yet."""
    # As it was after all that happened at one time: an update that is applied when it comes never waits.
    times, at = np.unique(np.concatenate([jobs.arrived, jobs.made]), return_inverse=True)
    count = np.cumsum(np.bincount(at, np.repeat([1.0, -1.0], len(jobs.arrived))))
    inside = (times >= start) & (times <= end)
    before = count[times < start]
    first = before[-1] if len(before) else 0.0
    x, y = np.concatenate([[start], times[inside]]), np.concatenate([[first], count[inside]])
    panel.step(x, y, where="post", color=COLOURS[6], linewidth=1.2)
    panel.fill_between(x, y, step="post", color=COLOURS[6], alpha=0.15, linewidth=0)
    panel.set_ylabel("updates\nwaiting")
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.set_ylim(bottom=0)


def _title(steps: Sequence[int], run: RunTables, shown: int, members: int) -> str:
    last = run.aggregations["version"][-1].as_py()
    steps_named = f"{len(steps)} steps, versions {steps[0]:,} to {steps[-1]:,}"
    named = steps_named if len(steps) > 1 else f"one step, version {steps[0]:,}"
    clients = (
        f"{shown} of their {members:,} clients, evenly chosen by speed" if shown < members else "all their clients"
    )
    return f"{named} of {last:,}; {clients}"


def _legend(run: RunTables, jobs: _Jobs, steps: Sequence[int], ours: np.ndarray) -> list[Artist]:
    entries: list[Artist] = []
    for number, step in enumerate(steps):
        made = run.aggregations.slice(step - _first(run), 1).to_pylist()[0]
        label = f"version {step:,}: {made['size']:,} updates, {made['trigger']}"
        entries.append(Patch(facecolor=COLOURS[number], label=label))
    entries.append(Patch(facecolor=_OTHER, label="of another version, or of none"))
    entries.append(Line2D([], [], color="#777777", linewidth=3, label="thin: waits at the server"))
    if jobs.late[ours].any():
        entries.append(Patch(facecolor="#777777", edgecolor="white", hatch="/////", label="late: for an earlier group"))
    return entries
