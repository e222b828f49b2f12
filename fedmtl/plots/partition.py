"""Who has how many examples of which class."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import COLOURS, SHADES, names_of, new_figure, styled

_CLIENTS = 120
_FLAT = 4
"""Letters of a client's name, from which on names stand upright."""


@styled
def draw(run: RunTables) -> Figure | None:
    """A heat map of clients by classes, under a bar for each client's examples; None if the run kept no partition.

    Of very many clients it shows an even sample.
    """
    if run.partition is None:
        return None
    clients, classes, counts = (run.partition[name].to_numpy() for name in ("client", "class", "examples"))
    total = int(clients.max()) + 1
    shown = np.unique(np.linspace(0, total - 1, min(total, _CLIENTS)).round().astype(np.int64))
    place = np.full(total, -1)
    place[shown] = np.arange(len(shown))
    table = np.zeros((int(classes.max()) + 1, len(shown)), dtype=np.int64)
    kept = place[clients] >= 0
    table[classes[kept], place[clients[kept]]] = counts[kept]

    height = 2.4 + min(6.0, max(2.0, 0.3 * len(table)))
    figure, (bars, cells) = new_figure(height, 2, 1, sharex=True, height_ratios=[1.2, height - 2.2])
    bars.bar(np.arange(len(shown)), table.sum(axis=0), width=0.85, color=COLOURS[0])
    bars.set_ylabel("examples")
    bars.grid(visible=False, axis="x")
    bars.set_title(_title(total, len(shown)))
    # The square root keeps a handful of examples visible beside hundreds; none at all is left white.
    image = cells.imshow(
        np.ma.masked_equal(table, 0),
        aspect="auto",
        interpolation="nearest",
        cmap=SHADES,
        norm=PowerNorm(0.5, 1, max(2, int(table.max()))),
    )
    cells.grid(visible=False)
    cells.set_xlabel("client")
    name = (run.partition.schema.metadata or {}).get(b"task", b"").decode()
    cells.set_ylabel(f"class of '{name}'" if name else "class")
    step = -(-len(shown) // 21)
    clients_shown = names_of(shown[::step].tolist(), run.client_names)
    upright = max(map(len, clients_shown)) > _FLAT
    cells.set_xticks(np.arange(0, len(shown), step), clients_shown, rotation=90 if upright else 0)
    rows = range(0, len(table), -(-len(table) // 20))
    cells.set_yticks(rows, names_of(rows, run.class_names))
    figure.colorbar(image, ax=cells, label="examples", pad=0.01, ticks=_ticks(int(table.max())))
    return figure


def _ticks(most: int) -> list[int]:
    """1, 2, 5, 10, 20, ... up to the largest number."""
    return [factor * 10**power for power in range(len(str(most))) for factor in (1, 2, 5) if factor * 10**power <= most]


def _title(total: int, shown: int) -> str:
    return f"{total} clients" if shown == total else f"{shown} of {total} clients, evenly chosen"
