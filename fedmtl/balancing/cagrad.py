"""CAGrad, conflict-averse gradient descent.

Paper: "Conflict-Averse Gradient Descent for Multi-task Learning" (arXiv 2110.14048), algorithm 1. With g_0 the mean
gradient and g_w = sum_i w_i g_i,

    w = argmin over the simplex of g_w . g_0 + c ||g_0|| ||g_w||,    d = (g_0 + c ||g_0|| g_w / ||g_w||) / (1 + c^2)

Differences: the authors' code multiplies d by the number of tasks; here that is an option (`times_tasks`), and so is
the clip to norm 1 that others add. Where g_w vanishes (a Pareto-stationary point) d is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip, TimesTasks
from fedmtl.components import Param


class CAGrad(GramWeighting):
    """Near the mean gradient, the direction that serves the worst-served task best.

    Examples
    --------
    Along the mean of these gradients (``c = 0``) the second loss would rise:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.cagrad import CAGrad
    >>> gradients = torch.tensor([[10.0, 0.0], [-0.6, 0.8]])
    >>> for c in (0.0, 0.4, 0.8):
    ...     c, (gradients @ balance_gradients(CAGrad(c=c), gradients).shared[0]).round(decimals=1)
    (0.0, tensor([47.0000, -2.5000]))
    (0.4, tensor([30.8000, -0.5000]))
    (0.8, tensor([14.9000,  0.8000]))
    """

    def __init__(
        self,
        *,
        c: Annotated[
            float, Param("radius around the mean gradient over its norm", ge=0, lt=1, source="authors' code")
        ] = 0.4,
        rescale: Annotated[bool, Param("whether d is divided by 1 + c^2", source="authors' code")] = True,
        head_weight: AuthorsHeads = "unweighted",
        times_tasks: TimesTasks = False,
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip, times_tasks)
        self._solve = torchjd.cagrad(c, rescale)

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """``(1/k + c ||g_0|| w / ||g_w||) / (1 + c^2)``, shape [k]."""
        return self._solve(gram)
