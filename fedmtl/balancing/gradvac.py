"""GradVac, gradient vaccine.

Paper: "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual Models" (arXiv
2010.05874), algorithm 1. For each task i, over the other tasks j in random order, with phi = cos(h_i, g_j) and
h_i = g_i at first, if phi is below the running mean t_ij of such cosines,

    h_i <- h_i + ||h_i|| (t sqrt(1 - phi^2) - phi sqrt(1 - t^2)) / (||g_j|| sqrt(1 - t^2)) g_j

which makes their cosine t; then t_ij <- (1 - b) t_ij + b phi; d = sum_i h_i. On coefficients of the gradients, so that
only the K by K Gram matrix is needed. The running means start at 0 in every job, and after a step that a task was left
out of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import Clip, OwnHeads
from fedmtl.components import Param


class GradVac(GramWeighting):
    """Gradients turned towards each other, up to the cosine they had of late.

    Examples
    --------
    Gradients with the cosine 0.8 stay as they are; then orthogonal ones are turned towards each other.

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.gradvac import GradVac
    >>> balancer = GradVac()
    >>> balance_gradients(balancer, [[1.0, 0.0], [0.8, 0.6]]).weights
    tensor([1., 1.])
    >>> balance_gradients(balancer, [[1.0, 0.0], [0.0, 1.0]]).weights
    tensor([1.4364, 1.4364])
    """

    def __init__(
        self,
        *,
        beta: Annotated[float, Param("b, share of the newest cosine in the mean", gt=0, le=1)] = 0.5,
        head_weight: OwnHeads = "unweighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self._vaccinate = torchjd.GradVac(beta)
        self._generator = torch.Generator()

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the cosines; draw the orders from this job's generator."""
        self._vaccinate.reset()
        self._generator = generator

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Sums of the coefficients, shape [k]."""
        return self._vaccinate(gram, self._generator)
