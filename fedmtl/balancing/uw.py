"""UW, uncertainty weighting.

Paper: "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics" (arXiv 1705.07115).
The losses' log variances s are learned beside the model, by Adam:

    L = sum_i (e^(-s_i) l_i + s_i) / 2,    so    w_i = e^(-s_i) / 2

Differences: none in the formula. In federation s starts anew in every job, as it belongs to no client and travels with
no model.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.loss_weighting import LossWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip
from fedmtl.components import Param


class UW(LossWeighting):
    """Weights from learned log variances, which start anew in every job.

    Examples
    --------
    The weights start at 1/2 and tend to half of one over the losses:

    >>> import torch
    >>> from fedmtl.balancing.uw import UW
    >>> balancer = UW(rate=0.1)
    >>> weights = [balancer.weigh(torch.tensor([0.5, 2.0])) for _ in range(200)]
    >>> weights[0], weights[-1].round(decimals=2)
    (tensor([0.5000, 0.5000]), tensor([1.0000, 0.2500]))
    """

    def __init__(
        self,
        *,
        rate: Annotated[float, Param("learning rate of s, by Adam", gt=0, source="authors' code")] = 0.025,
        start: Annotated[float, Param("s at the start of a job; the weights are then e^(-s) / 2", ge=-20, le=20)] = 0.0,
        head_weight: AuthorsHeads = "weighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        torchjd.require()
        self.rate = rate
        self.start = start
        self._learned: torchjd.Scalarized | None = None

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the log-variances s of earlier jobs."""
        self._learned = None

    def weigh(self, losses: Tensor) -> Tensor:
        """``e^(-s) / 2``, shape [tasks]; then s takes a step."""
        if self._learned is None:
            self._learned = torchjd.uw(len(losses), self.start, self.rate)
        return self._learned(losses)
