"""IMGrad, imbalance-sensitive gradients.

Paper: "Injecting Imbalance Sensitivity for Multi-Task Learning" (arXiv 2503.08006). With g_0 the mean gradient, g_m
MGDA's vector and cos t = cos(g_0, g_m),

    w = argmin over the simplex of (1 - cos t) (g_w . g_0 + c ||g_0|| ||g_w||) + cos t ||g_w||^2
    d = (g_0 + c ||g_0|| g_w / ||g_w||) / (1 + c^2)

as in the paper: CAGrad where the two disagree, MGDA's weights where they agree. (The authors' code has 1.5 for the 1.)
Gradients are brought to a common scale first, without which the two terms could not be added. d is CAGrad's, with the
same rescaling, and the authors' code multiplies it by the number of tasks, too (`times_tasks`); where g_w vanishes it
is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.least_norm import least_norm_weights
from fedmtl.balancing.options import AuthorsHeads, Clip, TimesTasks
from fedmtl.balancing.simplex import least_on_simplex
from fedmtl.components import Param

_LEAST = 1e-8  # norms below this, beside gradients of size 1, count as 0


class IMGrad(GramWeighting):
    """Between CAGrad and MGDA, by how much the mean gradient and MGDA's vector agree.

    Examples
    --------
    Where the mean gradient and MGDA's vector agree in part, the long gradient counts for more than in CAGrad:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.cagrad import CAGrad
    >>> from fedmtl.balancing.imgrad import IMGrad
    >>> for balancer in (CAGrad(c=0.8), IMGrad(c=0.8)):
    ...     balance_gradients(balancer, [[4.0, 1.0], [-1.0, 1.0]]).weights.round(decimals=2)
    tensor([0.3000, 0.9300])
    tensor([0.4000, 1.0200])
    """

    def __init__(
        self,
        *,
        c: Annotated[
            float, Param("radius around the mean gradient over its norm", ge=0, lt=1, source="authors' code")
        ] = 0.8,
        head_weight: AuthorsHeads = "unweighted",
        times_tasks: TimesTasks = False,
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip, times_tasks)
        self.c = c

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """``(1/k + c ||g_0|| w / ||g_w||) / (1 + c^2)``, shape [k]."""
        m = (gram / gram.diagonal().mean()).numpy()
        even = np.full(len(m), 1 / len(m))
        to_mean = m @ even  # g_i . g_0
        mean_norm = float(np.sqrt(max(even @ to_mean, 0.0)))
        radius = self.c * mean_norm
        agreement = _cosine(m, even, least_norm_weights(gram).numpy())

        def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
            mw = m @ w
            norm = max(float(np.sqrt(max(w @ mw, 0.0))), _LEAST)
            value = (1 - agreement) * (w @ to_mean + radius * norm) + agreement * norm**2
            return value, (1 - agreement) * (to_mean + radius * mw / norm) + 2 * agreement * mw

        w = least_on_simplex(objective, len(m))
        norm = float(np.sqrt(max(w @ m @ w, 0.0)))
        weights = even + radius / norm * w if norm > _LEAST else 0 * even
        return torch.from_numpy(weights / (1 + self.c**2))


def _cosine(m: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of two combinations of the gradients, in [0, 1]; 0 where one of them vanishes."""
    lengths = float(np.sqrt(max(one @ m @ one, 0.0) * max(other @ m @ other, 0.0)))
    return min(max(float(one @ m @ other) / lengths, 0.0), 1.0) if lengths > _LEAST**2 else 0.0
