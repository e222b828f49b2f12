"""How many versions behind the uploads were."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, new_figure, styled

_BARS = 60


@styled
def draw(run: RunTables) -> Figure | None:
    """A histogram of the staleness of applied uploads, split by the speed of their clients where that is known."""
    applied = run.applied
    if not applied.num_rows:
        return None
    staleness, clients = applied["staleness"].to_numpy(), applied["client"].to_numpy()
    width = max(1, -(-(int(staleness.max()) + 1) // _BARS))
    edges = np.arange(0, staleness.max() + width + 1, width)
    figure, (panel,) = new_figure(4.2)
    below = np.zeros(len(edges) - 1)
    for label, colour, chosen in _halves(run.seconds(), clients):
        counts, _ = np.histogram(staleness[chosen], edges)
        panel.bar(
            edges[:-1], counts, 0.9 * width, below, color=colour, label=label, align="edge" if width > 1 else "center"
        )
        below += counts
    mean = float(staleness.mean())
    panel.axvline(mean, color=COLOURS[6], linestyle="--", label=f"mean {mean:.1f}, largest {staleness.max()}")
    panel.set_xlabel("staleness (versions between an order and the aggregation of its update)")
    panel.set_ylabel("updates")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    panel.grid(visible=False, axis="x")
    panel.set_ylim(0, 1.06 * below.max())
    panel.margins(x=0.01)
    panel.legend(loc="upper right")
    return figure


def _halves(seconds: np.ndarray | None, clients: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    if seconds is None or np.ptp(seconds) == 0:
        return [("all clients", COLOURS[0], np.ones(len(clients), dtype=bool))]
    # Not by scipy.stats, which takes a second to load, in every run.
    ranks = np.argsort(np.argsort(seconds, kind="stable"))  # from 0; of equals the first is the faster
    fast = ranks[clients] < len(seconds) // 2
    return [
        ("faster half of the clients", COLOURS[0], fast),
        ("slower half of the clients", COLOURS[1], ~fast),
    ]
