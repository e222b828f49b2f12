"""FairGrad, alpha-fair resource allocation.

Paper: "Fair Resource Allocation in Multi-Task Learning" (arXiv 2402.15638), equation 4:

    M w = w^(-1/alpha),  w > 0,    d = sum_i w_i g_i

alpha = 1 is Nash-MTL, and the larger alpha, the more the worst-served task counts.

Differences: solved exactly (:mod:`fedmtl.balancing.fair`); the authors' general least-squares solver falls short where
gradient norms differ much. For an alpha far above 10 the weights would leave the range of float64. The weights scale
the heads, too, as is usual where losses are weighted; the authors' heads follow their own losses, and their d is K
times as long before it is clipped to norm 1 (``head_weight = "unweighted"``, ``times_tasks = true``, ``clip = 1``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fedmtl.balancing.fair import fair_weights
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import Clip, HeadWeight, TimesTasks
from fedmtl.components import Param


class FairGrad(GramWeighting):
    """Decreases of the losses that are alpha-fair.

    Examples
    --------
    How fast each loss falls: the larger alpha, the more alike.

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.fairgrad import FairGrad
    >>> gradients = torch.tensor([[10.0, 0.0], [-0.6, 0.8]])
    >>> for alpha in (1.0, 2.0, 10.0):
    ...     alpha, (gradients @ balance_gradients(FairGrad(alpha=alpha), gradients).shared[0]).round(decimals=2)
    (1.0, tensor([6.3200, 0.6300]))
    (2.0, tensor([2.8800, 0.8100]))
    (10.0, tensor([1.2500, 0.9500]))
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Param("kind of fairness; 1 is Nash-MTL", gt=0, le=10, source="authors' code")] = 2.0,
        head_weight: Annotated[
            HeadWeight, Param("whether the weights scale the heads; in the authors' code: unweighted")
        ] = "weighted",
        times_tasks: TimesTasks = False,
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip, times_tasks)
        self.alpha = alpha

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """The positive w with ``M w = w^(-1/alpha)``, shape [k]."""
        return fair_weights(gram, self.alpha)
