"""The tangent kernels of two groups of clients side by side, and what became of their losses meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedmtl.ntk.groups import BY_SKEW, BY_SPEED
from fedmtl.plots.jobs import evenly
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, GREY, log_scale, new_figure, styled, with_points

_TASKS = 6
_FAR_APART = 4.0
_RANKS: Mapping[int, dict[str, Any]] = {1: {"linestyle": "-"}, 4: {"linestyle": "--"}, 16: {"linestyle": ":"}}
"""Eigenvalues that are drawn, counted from the largest, each with its dash."""
_LOOKS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "fast": ("faster half of the clients", {"color": COLOURS[0], "marker": "o"}),
    "slow": ("slower half of the clients", {"color": COLOURS[1], "marker": "^"}),
    "unbiased": ("less skewed (unbiased) half", {"color": COLOURS[2], "marker": "o"}),
    "biased": ("more skewed (biased) half", {"color": COLOURS[3], "marker": "^"}),
}


def draw_by_speed(run: RunTables) -> Figure | None:
    """The faster and the slower half of the clients; None where no kernels of them were measured."""
    return _draw(run, BY_SPEED)


def draw_by_skew(run: RunTables) -> Figure | None:
    """The half of the clients with mixtures like all clients', and the other; None where none were measured."""
    return _draw(run, BY_SKEW)


@styled
def _draw(run: RunTables, groups: Sequence[str]) -> Figure | None:
    """A row per task: left eigenvalues over examples, right the loss, both against time and in each group."""
    table = run.ntk_groups
    if table is None:
        return None
    table = table.filter(pc.is_in(table["group"], pa.array(groups)))
    if not table.num_rows:
        return None
    names = [task["name"] for task in run.tasks]
    shown = [names[place] for place in evenly(np.arange(len(names)), _TASKS)]
    figure, panels = new_figure(1.5 + (2.1 if len(shown) < 4 else 1.75) * len(shown), len(shown), 2, sharex=True)
    for name, left, right in zip(shown, panels[::2], panels[1::2], strict=True):
        mine = table.filter(pc.equal(table["task"], name))
        for group in groups:
            _lines(left, right, mine.filter(pc.equal(mine["group"], group)), _LOOKS[group][1])
        left.set_title(name)
        for panel in (left, right):
            panel.margins(x=0.02)
            values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in panel.get_lines()])
            values = values[np.isfinite(values)]
            if values.size and values.max() > _FAR_APART * values.min():
                log_scale(panel)
        left.set_ylabel("eigenvalue / examples")
        right.set_ylabel("loss")
    for panel in panels[-2:]:
        panel.set_xlabel(f"{run.clock} (s)")
    if len(shown) < len(names):
        figure.supxlabel(f"{len(shown)} of {len(names)} tasks, evenly chosen", fontsize=10)
    handles = [Line2D([], [], label=_LOOKS[group][0], **_LOOKS[group][1]) for group in groups]
    for rank, dash in _RANKS.items():
        label = "largest eigenvalue" if rank == 1 else f"the {rank}th"
        handles.append(Line2D([], [], color=GREY, label=label, **dash))
    figure.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=10)
    return figure


def _lines(left: Axes, right: Axes, table: pa.Table, look: Mapping[str, Any]) -> None:
    """A group's eigenvalues and loss; values that are zero, and so have no place on the axis, are left out."""
    times, examples = table["time"].to_numpy(), table["examples"].to_numpy()
    few = "marker" in with_points({}, len(times))
    marker = {"marker": look["marker"], "markersize": 4} if few else {}
    for rank, dash in _RANKS.items():
        values = [spectrum[rank - 1] if len(spectrum) >= rank else 0.0 for spectrum in table["eigenvalues"].to_pylist()]
        sizes = np.array(values) / examples
        sizes = np.where(sizes > 1e-12, sizes, np.nan)
        left.plot(times, sizes, color=look["color"], **dash, **(marker if rank == 1 else {}))
    losses = table["loss"].to_numpy(zero_copy_only=False)
    right.plot(times, np.where(losses > 0, losses, np.nan), color=look["color"], **marker)
