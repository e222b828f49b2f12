"""How sure a mean over a few seeds is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval (Student's t); not a number for a single value."""
    from scipy import stats  # takes a second, and a run's numbers are printed without it

    numbers = np.asarray(values, dtype=float)
    if numbers.size < 2:
        return float(numbers.mean()) if numbers.size else math.nan, math.nan
    half = stats.t.ppf(0.975, numbers.size - 1) * numbers.std(ddof=1) / math.sqrt(numbers.size)
    return float(numbers.mean()), float(half)


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; one of a million and more, such as an error that exploded, in short."""
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.{digits}g}"
