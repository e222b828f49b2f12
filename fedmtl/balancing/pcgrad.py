"""PCGrad, gradient surgery.

Paper: "Gradient Surgery for Multi-Task Learning" (arXiv 2001.06782), algorithm 1. For each task i, over the other tasks
j in random order,

    h_i = g_i;    if h_i . g_j < 0:    h_i <- h_i - (h_i . g_j / ||g_j||^2) g_j;    d = sum_i h_i

on coefficients of the gradients, so that only the K by K Gram matrix is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import Clip, OwnHeads
from fedmtl.components import Param


class PCGrad(GramWeighting):
    """Each gradient without its components against the others.

    Examples
    --------
    Each of the two loses its component against the other, and no loss rises:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.pcgrad import PCGrad
    >>> gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    >>> step = balance_gradients(PCGrad(), gradients)
    >>> step.weights, step.shared[0]
    (tensor([2.0000, 1.5000]), tensor([0.5000, 1.5000]))
    >>> gradients @ step.shared[0]
    tensor([0.5000, 1.0000])
    """

    def __init__(
        self,
        *,
        reduction: Annotated[
            Literal["sum", "mean"], Param("what is made of the projected gradients", source="paper")
        ] = "sum",
        head_weight: OwnHeads = "unweighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.reduction = reduction
        self._project = torchjd.pcgrad()
        self._generator = torch.Generator()

    def start_job(self, generator: torch.Generator) -> None:
        """Draw the orders from this job's generator."""
        self._generator = generator

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Sums of the coefficients, shape [k]."""
        weights = self._project(gram, self._generator)
        return weights / len(gram) if self.reduction == "mean" else weights
