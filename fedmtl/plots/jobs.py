"""Jobs as bars, a row per client: what the pictures of devices and of buffers share."""

from __future__ import annotations

import numpy as np

from fedmtl.plots.run_tables import RunTables


def by_speed(run: RunTables, clients: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """The clients that answered, the fastest first: by their devices where these are known, else by their mean job.

    Parameters
    ----------
    run
        The run.
    clients, durations
        The client of each job, and its seconds.
    """
    present = np.unique(clients)
    seconds = run.seconds()
    if seconds is not None:
        return present[np.argsort(seconds[present], kind="stable")]
    jobs = np.bincount(clients)[present]
    return present[np.argsort(np.bincount(clients, durations)[present] / jobs, kind="stable")]


def evenly(order: np.ndarray, most: int) -> np.ndarray:
    """At most so many of these, evenly chosen, the first and the last among them."""
    chosen: np.ndarray = order[
        np.unique(np.linspace(0, len(order) - 1, min(len(order), most)).round().astype(np.int64))
    ]
    return chosen


def box(start: float, end: float, row: int, height: float = 0.76) -> list[tuple[float, float]]:
    """The corners of a bar in a row."""
    low, high = row - height / 2, row + height / 2
    return [(start, low), (end, low), (end, high), (start, high)]
