"""Equal weights: the sum of the losses, each times the server's factor for its task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing.base import Balancer, StepGradients, TaskNetwork
from fedmtl.balancing.options import HeadWeight
from fedmtl.balancing.passes import backbone_pass, clipped, combine, head_gradients, head_pass
from fedmtl.components import Param


class Equal(Balancer):
    """Equal weights (linear scalarisation): every task's loss counts as it is."""

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
        """Gradients of one step: one pass over everything where no factors are given."""
        if task_weights is None:
            return self._plain(network, inputs, targets)
        step = head_pass(network, inputs, targets)
        factors = step.losses.new_tensor(task_weights)
        shared = backbone_pass(network, step.representation, combine(step.gradients, factors))
        heads = head_gradients(network, step.heads, factors, self.head_weight)
        return StepGradients(clipped(shared, self.clip), heads, step.losses, factors)

    def _plain(self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> StepGradients:
        losses = network.losses(network.backbone(inputs), targets)
        gradients = torch.autograd.grad(losses, [*network.shared, *network.head_parameters])
        shared = len(network.shared)
        return StepGradients(
            clipped(gradients[:shared], self.clip), network.by_head(gradients[shared:]), torch.stack(losses).detach()
        )
