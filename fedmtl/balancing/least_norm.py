"""The shortest vector in a convex hull, solved exactly: what MGDA, IMGrad and FSMGDA ask for.

    w = argmin over the simplex of w^T M w,    M = J J^T

Frank and Wolfe's method, which the literature takes, creeps where norms differ: with eight tasks over three decades of
norms a fifth of its directions were over 5 per cent too long after a hundred steps, the worst six times. The programme
is quadratic, and an active-set method ends after about as many steps as there are tasks.

The active set is P. Wolfe's corral ("Finding the nearest point in a polytope", 1976): vectors whose affine hull has its
shortest point inside their convex hull. A vector that this point does not gain enough along joins them, and those that
the new shortest point would give a negative weight leave. Everything is in multiples ``u_i = w_i ||g_i||`` of unit
vectors, so that norms of any size are alike; with ``C`` the cosines and ``b_i = 1 / ||g_i||`` the shortest point of the
affine hull of a corral is the multiple of v on which ``b^T u = 1``, where (Haskell and Hanson, "An algorithm for linear
least squares problems with equality and nonnegativity constraints", 1981)

    (C + b b^T) v = b

which also holds for vectors that cancel each other.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_EXACT = 1e-9  # what a product with the point may lack, in squared lengths of the shortest vector
_ROUNDING = 4 * float(np.finfo(np.float64).eps)


def least_norm_weights(gram: Tensor) -> Tensor:
    """The weights of the shortest vector in the convex hull of some vectors.

    Which weights, where several give it, is not said; but vectors that are equal have equal weights.

    Parameters
    ----------
    gram
        The vectors' products M, float64 on the CPU, shape [k, k].

    Returns
    -------
    Tensor
        w, shape [k]: at least 0, sum 1, and ``(M w)_i >= w^T M w`` for all i up to the precision of float64. Equal
        weights if a product is not finite.

    Examples
    --------
    Of two vectors in conflict, and of two of which one alone is the shortest:

    >>> import torch
    >>> from fedmtl.balancing.least_norm import least_norm_weights
    >>> for rows in ([[1.0, 0.0], [-1.0, 1.0]], [[3.0, 4.0], [1.0, 0.0]]):
    ...     vectors = torch.tensor(rows, dtype=torch.float64)
    ...     least_norm_weights(vectors @ vectors.T)
    tensor([0.6000, 0.4000], dtype=torch.float64)
    tensor([0., 1.], dtype=torch.float64)
    """
    m = gram.numpy()
    if not np.isfinite(m).all():
        return torch.full((len(m),), 1 / len(m), dtype=torch.float64)
    norms = np.sqrt(m.diagonal())
    if (least := norms.min()) == 0.0:
        w = (norms == 0.0).astype(np.float64)
    else:
        b = least / norms  # in units of the shortest vector
        w = b * _multiples(m / norms / norms[:, None], b)
    equal = (m == m[:, None]).all(2)
    w = equal @ w / equal.sum(1)
    return torch.from_numpy(w / w.sum())


def _multiples(cosines: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The u >= 0 with ``b^T u = 1`` and the least ``u^T C u``, shape [k]."""
    u = np.zeros(len(b))
    u[b.argmax()] = 1.0
    square = 1.0
    for _ in range(20 * len(b)):
        product = cosines @ u
        lacking = square * b - product - _EXACT * b - _ROUNDING * u.sum()
        joins = int(lacking.argmax())
        if lacking[joins] <= 0.0:
            break
        found = _shortest_of_corral(cosines, b, u, joins)
        if not (shorter := float(found @ cosines @ found)) < square:
            # Cosines so near to 1 or -1 that the system has no digits left: straight towards the vector that joins.
            found = _shortest_between(cosines, b, u, product, joins)
            if not (shorter := float(found @ cosines @ found)) < square:
                break
        u, square = found, max(shorter, 0.0)
    return u


def _shortest_of_corral(cosines: np.ndarray, b: np.ndarray, u: np.ndarray, joins: int) -> np.ndarray:
    """The shortest point of the vectors of u and of one that joins them, less those that turn out not to belong."""
    u = u.copy()
    inside = u > 0
    inside[joins] = True
    while inside.any():
        corral = inside.nonzero()[0]
        here = b[corral] / b[corral].max()
        try:
            v = np.linalg.solve(cosines[np.ix_(corral, corral)] + here * here[:, None], here)
        except np.linalg.LinAlgError:
            break
        if not (scale := float(v @ b[corral])) > 0.0:  # below float64's precision
            break
        v = v / scale
        negative = ~(v > 0)
        if not negative.any():
            u[corral] = v
            break
        # As far towards it as all weights stay positive; there at least one is 0.
        at = u[corral]
        shares = at[negative] / (at[negative] - v[negative])
        share = shares.min()
        u[corral] = np.maximum(at + share * (v - at), 0.0)
        gone = corral[negative][shares <= share]
        u[gone] = 0.0
        inside[gone] = False
    return u


def _shortest_between(cosines: np.ndarray, b: np.ndarray, u: np.ndarray, product: np.ndarray, end: int) -> np.ndarray:
    """The shortest point on the way from that of u to one of the vectors."""
    way = -u
    way[end] += 1 / b[end]
    curvature = float(way @ cosines @ way)
    return u + min(max(-float(way @ product) / curvature, 0.0), 1.0) * way if curvature > 0.0 else u
