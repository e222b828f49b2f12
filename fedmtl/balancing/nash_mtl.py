"""Nash-MTL, the bargaining solution.

Paper: "Multi-Task Learning as a Bargaining Game" (arXiv 2202.01017):

    M w = 1 / w,  w > 0,    d = sum_i w_i g_i,    so    w_i g_i . d = 1  and  ||d||^2 = K

Differences: solved exactly in every step (:mod:`fedmtl.balancing.fair`), where the authors' twenty steps of a
convex-concave procedure fall short once norms differ much. Their bound of ||d|| by 1 is the
option `clip`. Where gradients oppose each other exactly there is no solution, and the weights are large but finite.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedmtl.balancing.fair import fair_weights
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip


class NashMTL(GramWeighting):
    """Nash's bargaining solution: every task's weighted gradient gains the same.

    Examples
    --------
    A gradient of length 5 and one of length 1 gain the same, once weighted:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.nash_mtl import NashMTL
    >>> gradients = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    >>> step = balance_gradients(NashMTL(), gradients)
    >>> step.weights
    tensor([0.1581, 0.7906])
    >>> (step.weights * (gradients @ step.shared[0])).round(decimals=2)
    tensor([1., 1.])
    """

    def __init__(self, *, head_weight: AuthorsHeads = "weighted", clip: Clip = 0.0) -> None:
        super().__init__(head_weight, clip)

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """The positive w with ``M w = 1 / w``, shape [k]."""
        return fair_weights(gram, 1.0)
