"""What the devices did when."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedmtl.plots.jobs import box, by_speed, evenly
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, GREY, SEQUENTIAL, names_of, new_figure, styled

_ROWS = 40
_LONGEST_JOBS = 4


@styled
def draw(run: RunTables) -> Figure | None:
    """A row per client, the fastest on top, and a bar per job, coloured by the staleness of its update.

    Of many clients it shows an even sample by speed, and of a long run the beginning: a few of the longest jobs.
    """
    if not run.updates.num_rows:
        return None
    starts, ends = (run.updates[name].to_numpy() for name in ("dispatched_at", "arrived_at"))
    clients = run.updates["client"].to_numpy()
    staleness = run.updates["staleness"].to_numpy(zero_copy_only=False).astype(float)
    rejected = run.updates["rejected"].is_valid().to_numpy()
    end = min(float(ends.max()), starts.min() + _LONGEST_JOBS * float((ends - starts).max()))
    order = by_speed(run, clients, ends - starts)
    shown = evenly(order, _ROWS)
    row = {int(client): number for number, client in enumerate(shown)}
    kept = np.isin(clients, shown) & (starts < end)

    figure, (panel,) = new_figure(1.4 + 0.17 * max(len(shown), 14))
    norm = Normalize(0, max(1.0, np.max(staleness[kept & ~np.isnan(staleness)], initial=1.0)))
    looks = (
        (kept & ~np.isnan(staleness), None, "applied"),
        (kept & rejected, COLOURS[1], "rejected"),
        (kept & np.isnan(staleness) & ~rejected, GREY, "still waiting at the end"),
    )
    image = None
    for chosen, colour, label in looks:
        boxes = [box(starts[i], ends[i], row[int(clients[i])]) for i in np.flatnonzero(chosen)]
        if not boxes:
            continue
        if colour is None:
            image = PolyCollection(boxes, array=staleness[chosen], cmap=SEQUENTIAL, norm=norm)
        bars = image if colour is None and image is not None else PolyCollection(boxes, facecolor=colour, label=label)
        bars.set_edgecolor("white")
        bars.set_linewidth(0.4)
        panel.add_collection(bars)
    if image is not None:
        figure.colorbar(image, ax=panel, label="staleness (versions)", pad=0.01, ticks=MaxNLocator(integer=True))
    panel.set_xlim(starts.min(), end)
    panel.set_ylim(len(shown) - 0.4, -0.6)
    panel.set_yticks(range(len(shown)), names_of(shown.tolist(), run.client_names), fontsize=8)
    panel.set_xlabel(f"{run.clock} (s)")
    panel.set_ylabel("client, fastest on top")
    panel.grid(visible=False, axis="y")
    if cut := _cut(len(shown), len(order), end, float(ends.max())):
        panel.set_title(cut)
    if panel.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper right", ncols=2)
    return figure


def _cut(shown: int, clients: int, end: float, last: float) -> str:
    """What of the run is left out, for a title."""
    parts = [f"{shown} of {clients} clients, evenly chosen by speed"] if shown < clients else []
    parts += [f"the first {end:.3g} of {last:.3g} s"] if end < last else []
    return "; ".join(parts)
