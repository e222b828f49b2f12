"""RLW, random loss weighting.

Paper: "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning" (arXiv 2111.10603). In
every step anew

    w = softmax(u),    u_i from N(0, 1)

The draws are those of the job, so that a run repeats to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.loss_weighting import LossWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip


class RLW(LossWeighting):
    """Random weights that sum to 1, drawn anew in every step.

    Examples
    --------
    Other weights in every step; they depend on nothing but the job's generator:

    >>> import torch
    >>> from fedmtl.balancing.rlw import RLW
    >>> balancer = RLW()
    >>> balancer.start_job(torch.Generator().manual_seed(0))
    >>> one, other = (balancer.weigh(torch.tensor([0.5, 4.0])) for _ in range(2))
    >>> bool((one != other).all()), torch.stack([one, other]).sum(1).round(decimals=2)
    (True, tensor([1., 1.]))
    """

    def __init__(self, *, head_weight: AuthorsHeads = "weighted", clip: Clip = 0.0) -> None:
        super().__init__(head_weight, clip)
        self._draw = torchjd.random()
        self._generator = torch.Generator()

    def start_job(self, generator: torch.Generator) -> None:
        """Draw from this job's generator."""
        self._generator = generator

    def weigh(self, losses: Tensor) -> Tensor:
        """Softmax of normal draws, shape [tasks]."""
        return self._draw(len(losses), self._generator)
