"""Uploads in windows of time, for what is shown as it changes over a run."""

from __future__ import annotations

import numpy as np


def windows(times: np.ndarray, count: int = 60, least: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """The window that each time falls in, and the middle of each window.

    There are at most `count` windows of equal length over the whole span, and fewer where a window would hold
    fewer than `least` times on average.
    """
    number = max(1, min(count, len(times) // least))
    edges = np.linspace(times.min(), times.max(), number + 1)
    index = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, number - 1)
    return index, (edges[:-1] + edges[1:]) / 2
