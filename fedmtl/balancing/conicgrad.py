"""ConicGrad, the best direction in a cone around the mean gradient.

Paper: "Fantastic Multi-Task Gradient Updates and How to Find Them In a Cone" (arXiv 2502.00217):

    max over d of min over the simplex of g_w . d,    cos(d, g_0) >= c,    ||d|| = ||g_0||

Its closed form was not to be had, so this is derived. With u_0 = g_0 / ||g_0||, for a fixed w the best unit vector is

    g_w / ||g_w||  inside the cone,    else  c u_0 + sqrt(1 - c^2) unit(g_w - (g_w . u_0) u_0)

and reaches ``||g_w||``, or ``c g_w . u_0 + sqrt(1 - c^2) ||g_w - (g_w . u_0) u_0||``. That is convex in w, and w is
where it is least. On coefficients of the gradients, so that only the K by K Gram matrix is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import Clip, OwnHeads
from fedmtl.balancing.simplex import least_on_simplex
from fedmtl.components import Param

_LEAST = 1e-8  # norms below this, beside gradients of size 1, count as 0


class ConicGrad(GramWeighting):
    """In a cone around the mean gradient, the direction that serves the worst-served task best.

    Examples
    --------
    The mean of these gradients would raise the second loss. The direction goes as far from it as c allows, 60 degrees:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.conicgrad import ConicGrad
    >>> gradients = torch.tensor([[10.0, 0.0], [-0.6, 0.8]])
    >>> direction = balance_gradients(ConicGrad(c=0.5), gradients).shared[0]
    >>> torch.cosine_similarity(direction, gradients.mean(0), dim=0)
    tensor(0.5000)
    >>> (gradients @ direction).round(decimals=2)
    tensor([20.0400,  2.2100])
    """

    def __init__(
        self,
        *,
        c: Annotated[float, Param("least cosine with the mean gradient", gt=0, lt=1)] = 0.5,
        head_weight: OwnHeads = "unweighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.c = c

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Coefficients of the direction, whose length is ``||g_0||``, shape [k]; zeros where g_0 vanishes."""
        m = (gram / gram.diagonal().mean()).numpy()
        even = np.full(len(m), 1 / len(m))
        mean_norm = math.sqrt(max(float(even @ m @ even), 0.0))
        if mean_norm <= _LEAST:
            return torch.zeros(len(m), dtype=torch.float64)
        toward = m @ even / mean_norm  # g_i . u_0
        w = least_on_simplex(lambda w: self._reach(m, toward, w), len(m))
        along, across, norm = _parts(m, toward, w)
        if self._inside(along, norm):
            direction = w / norm
        else:
            sine = math.sqrt(1 - self.c**2)
            direction = self.c * even / mean_norm
            if across > _LEAST:
                direction = direction + sine * (w - along * even / mean_norm) / across
        return torch.from_numpy(mean_norm * direction)

    def _inside(self, along: float, norm: float) -> bool:
        return norm > _LEAST and along >= self.c * norm

    def _reach(self, m: np.ndarray, toward: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
        """What the best unit vector of the cone gains for g_w, and its derivative."""
        along, across, norm = _parts(m, toward, w)
        if self._inside(along, norm):
            return norm, m @ w / norm
        sine = math.sqrt(1 - self.c**2)
        slope = (m @ w - along * toward) / max(across, _LEAST)
        return self.c * along + sine * across, self.c * toward + sine * slope


def _parts(m: np.ndarray, toward: np.ndarray, w: np.ndarray) -> tuple[float, float, float]:
    """Of g_w: the component along u_0, the length of the rest, and the whole length."""
    along = float(w @ toward)
    squared = max(float(w @ m @ w), 0.0)
    return along, math.sqrt(max(squared - along**2, 0.0)), math.sqrt(squared)
