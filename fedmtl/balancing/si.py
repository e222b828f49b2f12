"""SI, scale-invariant weights: the sum of the losses' logarithms.

A baseline of "Multi-Task Learning as a Bargaining Game" (arXiv 2202.01017):

    L = sum_i log l_i,    so    w_i = 1 / l_i

Multiplying a loss by a constant changes nothing. Losses must be positive; one below `eps` counts as `eps`.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from fedmtl.balancing.loss_weighting import LossWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip
from fedmtl.components import Param


class SI(LossWeighting):
    """Scale-invariant weights: each task's weight is one over its loss.

    Examples
    --------
    The weighted losses are equal:

    >>> import torch
    >>> from fedmtl.balancing.si import SI
    >>> SI().weigh(torch.tensor([0.5, 4.0]))
    tensor([2.0000, 0.2500])
    """

    def __init__(
        self,
        *,
        eps: Annotated[float, Param("least loss that is distinguished from 0", gt=0)] = 1e-8,
        head_weight: AuthorsHeads = "weighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.eps = eps

    def weigh(self, losses: Tensor) -> Tensor:
        """``1 / l``, shape [tasks]."""
        return losses.clamp_min(self.eps).reciprocal()
