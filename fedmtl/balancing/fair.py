"""Alpha-fair weights, solved exactly: what Nash-MTL and FairGrad ask for.

torchjd's FairGrad hands the equation to a general least-squares solver, which stops short where gradient norms differ:
over three decades of norms and eight tasks it was off by three quarters for alpha = 5. The equation is the condition of
a convex problem, and Newton's method solves that in about ten steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_RIDGE = 1e-8  # beside a diagonal of 1: below the precision of float32 gradients, and it bounds the weights
_STEPS = 100
_EXACT = 1e-10
_GOOD = 1e-8  # relative error of the equation that is left alone where the objective has no more digits


def fair_weights(gram: Tensor, alpha: float) -> Tensor:
    """The positive w with ``M w = w^(-1/alpha)``, shape [k].

    It is where ``w^T M w / 2 - sum_i phi(w_i)`` with ``phi'(w) = w^(-1/alpha)`` is least. The start solves the equation
    for orthogonal gradients, and w is sought as a multiple of it, so that norms of any size are alike. Where a
    combination of the gradients vanishes (they oppose each other), weights are large but finite.

    Parameters
    ----------
    gram
        M, float64 on the CPU, shape [k, k], with a positive diagonal.
    alpha
        Kind of fairness, above 0; 1 is Nash's bargaining solution.
    """
    m = gram.numpy()
    sizes = m.diagonal()
    start = sizes ** (-alpha / (1 + alpha))
    norms = np.sqrt(sizes)
    cosines = m / norms / norms[:, None] + _RIDGE * np.eye(len(m))
    # In multiples x of the start: A x = b x^(-1/alpha), with b the diagonal of A.
    b = start**2 * sizes
    root = np.sqrt(b)
    x = _newton(root * cosines * root[:, None], b, 1 / alpha)
    return torch.from_numpy(start * x)


def _newton(a: np.ndarray, b: np.ndarray, power: float) -> np.ndarray:
    """The positive x with ``A x = b x^-power``, shape [k]."""
    x = np.ones(len(b))
    value = _value(a, b, power, x)
    for _ in range(_STEPS):
        ax = a @ x
        pull = b * x**-power
        if np.abs(ax / pull - 1).max() < _EXACT:
            return x
        slope = ax - pull
        move = -np.linalg.solve(a + np.diag(power * pull / x), slope)
        shrinking = move < 0
        length = min(1.0, 0.9 * float((x[shrinking] / -move[shrinking]).min())) if shrinking.any() else 1.0
        while (found := _value(a, b, power, x + length * move)) > value + 1e-4 * length * (slope @ move):
            length /= 2
            if length < 1e-10:  # the objective is below float64's precision, but the equation may not be
                return _polished(a, b, power, x)
        x, value = x + length * move, found
    return _polished(a, b, power, x)


def _polished(a: np.ndarray, b: np.ndarray, power: float, x: np.ndarray) -> np.ndarray:
    """Whole Newton steps as long as the equation does not hold, and they bring it nearer to that."""
    missed = _missed(a, b, power, x)
    for _ in range(_STEPS):
        if missed < _GOOD:
            break
        pull = b * x**-power
        found = x - np.linalg.solve(a + np.diag(power * pull / x), a @ x - pull)
        if not (found > 0).all() or not (less := _missed(a, b, power, found)) < missed:
            break
        x, missed = found, less
    return x


def _missed(a: np.ndarray, b: np.ndarray, power: float, x: np.ndarray) -> float:
    """How far A x is from what it should be, relative to that, at most."""
    return float(np.abs(a @ x / (b * x**-power) - 1).max())


def _value(a: np.ndarray, b: np.ndarray, power: float, x: np.ndarray) -> float:
    """The convex function whose minimum is the solution."""
    gain = np.log(x) if power == 1.0 else x ** (1 - power) / (1 - power)
    return float(x @ a @ x / 2 - b @ gain)
