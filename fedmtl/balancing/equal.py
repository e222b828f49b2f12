"""Equal weights: the sum of the losses, each times the server's factor for its task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.gradients import clipped, head_gradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.options import HeadWeight
from fedmtl.components import Param


class Equal(Balancer):
    """Equal weights (linear scalarisation): every task's loss counts as it is.

    Examples
    --------
    The sum of the gradients, or the sum by the server's factors:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.equal import Equal
    >>> gradients = [[10.0, 0.0], [0.0, 1.0]]
    >>> balance_gradients(Equal(), gradients).shared[0]
    tensor([10.,  1.])
    >>> balance_gradients(Equal(), gradients, task_weights=[0.5, 2.0]).shared[0]
    tensor([5., 2.])
    """

    def __init__(
        self,
        *,
        head_weight: Annotated[HeadWeight, Param("whether the server's factors scale the heads")] = "unweighted",
        clip: Annotated[float, Param("upper bound of the shared gradient's L2 norm; 0 for none", ge=0)] = 0.0,
    ) -> None:
        self.head_weight = head_weight
        self.clip = clip

    def gradients(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step, in one pass."""
        representation, pullback = network.represent(inputs)
        heads = network.head_pass(representation, targets)
        if task_weights is None:
            shared = pullback(network.summed_gradient(heads.slopes)) if network.shared else ()
            return StepGradients(clipped(shared, self.clip), network.by_head(heads.gradients), heads.losses)
        factors = heads.losses.new_tensor(task_weights)
        weighed = [slope * factor for slope, factor in zip(heads.slopes, task_weights, strict=True)]
        shared = pullback(network.summed_gradient(weighed))
        own = head_gradients(network, heads.gradients, factors, self.head_weight)
        return StepGradients(clipped(shared, self.clip), own, heads.losses, factors)
