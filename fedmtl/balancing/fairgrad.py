"""FairGrad, alpha-fair resource allocation.

Paper: "Fair Resource Allocation in Multi-Task Learning" (arXiv 2402.15638), equation 4:

    M w = w^(-1/alpha),  w > 0,    d = sum_i w_i g_i

alpha = 1 is Nash-MTL, and the larger alpha, the more the worst-served task counts.

Difference: solved exactly (:mod:`fedmtl.balancing.fair`); the authors' general least-squares solver falls short where
gradient norms differ much. For an alpha far above 10 the weights would leave the range of float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fedmtl.balancing.fair import fair_weights
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import Clip, OwnHeads
from fedmtl.components import Param


class FairGrad(GramWeighting):
    """Decreases of the losses that are alpha-fair."""

    def __init__(
        self,
        *,
        alpha: Annotated[float, Param("kind of fairness; 1 is Nash-MTL", gt=0, le=10, source="authors' code")] = 2.0,
        head_weight: OwnHeads = "weighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.alpha = alpha

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """The positive w with ``M w = w^(-1/alpha)``, shape [k]."""
        return fair_weights(gram, self.alpha)
