"""The global model's tangent kernels as a run went on."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import SHADES, line_look, new_figure, styled, with_points

_RANKS = (1, 2, 4, 8, 16, 32)


@styled
def draw_spectra(run: RunTables) -> Figure | None:
    """A panel per task: eigenvalues 1, 2, 4, ... of its kernel of losses against versions."""
    measured = _losses(run)
    if measured is None:
        return None
    names = [task["name"] for task in run.tasks]
    columns = min(len(names), 2 if len(names) <= 4 else 3 if len(names) <= 12 else 5)
    rows = math.ceil(len(names) / columns)
    figure, panels = new_figure(1.0 + (3.0 if rows < 3 else 2.2) * rows, rows, columns, sharex=True)
    looks: dict[int, Line2D] = {}
    for place, (panel, name) in enumerate(zip(panels, names, strict=False)):
        table = measured.filter(pc.equal(measured["task"], name))
        values = np.array(table["eigenvalues"].to_pylist(), dtype=np.float64)
        for number, rank in enumerate(_RANKS):
            if rank <= values.shape[1]:
                colour = SHADES(1 - number / len(_RANKS))
                line = np.where(values[:, rank - 1] > 0, values[:, rank - 1], np.nan)
                look = with_points({"color": colour, "label": f"{rank}"}, table.num_rows)
                (looks[rank],) = panel.plot(table["version"].to_numpy(), line, **look)
        panel.set_title(name)
        _log_scale(panel)
        panel.margins(x=0.01)
        panel.tick_params(labelbottom=place + columns >= len(names))
        if place + columns >= len(names):
            panel.set_xlabel("version of the global model")
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.legend(
        handles=list(looks.values()), loc="outside right center", title="eigenvalue,\nlargest\nfirst", title_fontsize=9
    )
    return figure


@styled
def draw_sizes(run: RunTables) -> Figure | None:
    """Against versions, a line per task: trace, effective rank, and mean cosine with the other tasks' gradients."""
    measured = _losses(run)
    if measured is None:
        return None
    names = [task["name"] for task in run.tasks]
    several = len(names) > 1
    figure, panels = new_figure(3.9 + 0.25 * math.ceil(len(names) / 6), 1, 3 if several else 2)
    for index, name in enumerate(names):
        table = measured.filter(pc.equal(measured["task"], name))
        versions, look = table["version"].to_numpy(), with_points(line_look(index), table.num_rows)
        trace = table["trace"].to_numpy() / table["examples"].to_numpy()
        panels[0].plot(versions, np.where(trace > 0, trace, np.nan), label=name, **look)
        panels[1].plot(versions, table["effective_rank"].to_numpy(zero_copy_only=False), **look)
        if several:
            cosine = np.array(table["cosine"].to_pylist(), dtype=np.float64)
            panels[2].plot(versions, np.delete(cosine, index, axis=1).mean(axis=1), **look)
    titles = ("trace / examples", "effective rank", "gradient cosine with other tasks")
    for panel, title in zip(panels, titles, strict=False):
        panel.set_title(title, fontsize=11)
        panel.set_xlabel("version")
        panel.margins(x=0.01)
    _log_scale(panels[0])
    lines = panels[0].get_lines()
    if several:
        panels[2].axhline(0.0, color="#999999", linewidth=0.8, zorder=0)
    figure.legend(handles=lines, loc="outside upper center", ncols=min(6, len(names)))
    return figure


def _log_scale(panel: Axes) -> None:
    """A logarithmic axis if anything on it is positive: the kernels of a model that shares nothing are zero."""
    if any(np.isfinite(np.asarray(line.get_ydata(), dtype=np.float64)).any() for line in panel.get_lines()):
        panel.set_yscale("log")


def _losses(run: RunTables) -> pa.Table | None:
    if run.ntk is None or not run.ntk.num_rows:
        return None
    return run.ntk.filter(pc.equal(run.ntk["kernel"], "losses"))
