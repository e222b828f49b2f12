"""Which types clients had, over time."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from matplotlib.figure import Figure

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, GREY, new_figure, styled
from fedmtl.plots.windows import windows


@styled
def draw(run: RunTables) -> Figure | None:
    """The share of each client type among the uploads, as stacked areas; None if no client was ever typed."""
    types = run.updates["client_type"]
    names = sorted(set(types.unique().to_pylist()) - {""})
    if not names:
        return None
    times = run.updates["arrived_at"].to_numpy()
    index, middles = windows(times)
    order = ["", *names]
    counts = np.zeros((len(order), len(middles)))
    for row, name in enumerate(order):
        counts[row] = np.bincount(index[pc.equal(types, name).to_numpy()], minlength=len(middles))
    filled = counts.sum(axis=0) > 0
    shares = 100 * counts[:, filled] / counts[:, filled].sum(axis=0)
    where = middles[filled]
    if where.size == 1:  # one window has no width by itself
        where, shares = np.array([times.min(), times.max()]), np.repeat(shares, 2, axis=1)
    figure, (panel,) = new_figure(4.2)
    colours = [GREY, *(COLOURS[i % len(COLOURS)] for i in range(len(names)))]
    panel.stackplot(
        where,
        shares,
        labels=["not typed", *names],
        colors=colours,
        alpha=0.85,
        edgecolor="white",
        linewidth=0.5,
    )
    panel.set_xlabel(f"{run.clock} of arrival (s)")
    panel.set_ylabel("share of the updates (%)")
    panel.set_ylim(0, 100)
    panel.margins(x=0)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
    return figure
