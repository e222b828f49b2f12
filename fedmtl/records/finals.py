"""A run's final values: means over its last evaluations, and over which of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LAST_EVALUATIONS = 20
"""How many of the last evaluated versions a final value is the mean over, at most."""


@dataclass(frozen=True)
class Window:
    """Over which evaluations a mean is.

    Attributes
    ----------
    first, last
        The first and the last version among them.
    evaluations
        How many they are; 0 if nothing was evaluated, and then both versions are 0.
    """

    first: int
    last: int
    evaluations: int

    def as_json(self) -> dict[str, int]:
        """The window as a summary has it."""
        return asdict(self)


def final_window(versions: Sequence[int] | np.ndarray) -> Window:
    """The evaluations that a final value is the mean over.

    These are the last 20, but none of the first half of the versions: where evaluations are few, the others show how
    the model learned and not what became of it. Version 0, which is not trained, counts only if it is the only one.

    Parameters
    ----------
    versions
        Of all evaluations, ascending, shape [evaluations].
    """
    every = np.asarray(versions, dtype=np.int64)
    if not every.size:
        return Window(0, 0, 0)
    chosen = every[2 * every > every[-1]][-LAST_EVALUATIONS:] if every[-1] else every[-1:]
    return Window(int(chosen[0]), int(chosen[-1]), int(chosen.size))


def final_mean(versions: Sequence[int] | np.ndarray, values: Sequence[float] | np.ndarray) -> float:
    """The mean of a metric over its final window; not a number where nothing was evaluated.

    Parameters
    ----------
    versions, values
        The evaluated versions, ascending, and the metric at each, shape [evaluations].
    """
    window = final_window(versions)
    return float(np.asarray(values, dtype=np.float64)[-window.evaluations :].mean()) if window.evaluations else np.nan


def window_words(window: Mapping[str, Any] | None) -> str:
    """Over which evaluations a mean of a summary is, such as ``"versions 210 to 400, 20 evaluations"``.

    Parameters
    ----------
    window
        ``mean_over`` of a summary; None in one that an older FedMTL wrote.
    """
    if window is None:
        return f"up to {LAST_EVALUATIONS} last evaluations"
    first, last, evaluations = window["first"], window["last"], window["evaluations"]
    if not evaluations:
        return "no evaluation"
    if not last:
        return "version 0 alone, which is not trained"
    if evaluations == 1:
        return f"version {last:,} alone"
    return f"versions {first:,} to {last:,}, {evaluations} evaluations"
