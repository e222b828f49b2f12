"""Convex functions on the simplex."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""From w, shape [k], to a value and a gradient of shape [k]."""


def least_on_simplex(function: Function, tasks: int) -> np.ndarray:
    """The w of shape [tasks], ``w >= 0`` and ``sum w = 1``, where a convex function of about unit size is least.

    By sequential least squares programming from equal weights, as the authors of these methods do.
    """
    from scipy.optimize import minimize

    found = minimize(
        function,
        np.full(tasks, 1 / tasks),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * tasks,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(tasks)},
        options={"ftol": 1e-12, "maxiter": 200},
    )
    w = np.clip(found.x, 0.0, None)
    return np.asarray(w / w.sum())
