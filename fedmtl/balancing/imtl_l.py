"""IMTL-L, the loss balance of impartial multi-task learning.

Paper: "Towards Impartial Multi-Task Learning" (ICLR 2021). The logarithms s of the weights are learned beside the
model, by Adam, and drive every weighted loss towards 1:

    L = sum_i (e^(s_i) l_i - s_i),    so    w_i = e^(s_i)

Difference: in federation s starts anew in every job.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.loss_weighting import LossWeighting
from fedmtl.balancing.options import Clip, OwnHeads
from fedmtl.components import Param


class IMTLL(LossWeighting):
    """Learned weights that bring the weighted losses to one size; they start at 1 in every job.

    Examples
    --------
    The weights start at 1 and tend to one over the losses:

    >>> import torch
    >>> from fedmtl.balancing.imtl_l import IMTLL
    >>> balancer = IMTLL(rate=0.1)
    >>> weights = [balancer.weigh(torch.tensor([0.5, 4.0])) for _ in range(200)]
    >>> weights[0], weights[-1].round(decimals=2)
    (tensor([1., 1.]), tensor([2.0000, 0.2500]))
    """

    def __init__(
        self,
        *,
        rate: Annotated[float, Param("learning rate of s, by Adam", gt=0)] = 0.025,
        head_weight: OwnHeads = "weighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        torchjd.require()
        self.rate = rate
        self._learned: torchjd.Scalarized | None = None

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the scales s of earlier jobs."""
        self._learned = None

    def weigh(self, losses: Tensor) -> Tensor:
        """``e^s``, shape [tasks]; then s takes a step."""
        if self._learned is None:
            self._learned = torchjd.imtl_l(len(losses), self.rate)
        return self._learned(losses)
