"""Equal weights: the sum of the losses, each times the server's factor for its task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing.base import Balancer, StepGradients, TaskNetwork
from fedmtl.balancing.options import HeadWeight
from fedmtl.balancing.passes import clipped, head_gradients, one_pass
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
        """Gradients of one step, in one pass."""
        if task_weights is None:
            plain = one_pass(network, inputs, targets)
            return StepGradients(clipped(plain.shared, self.clip), network.by_head(plain.heads), plain.losses)
        factors = inputs.new_tensor(task_weights, dtype=torch.float32)
        step = one_pass(network, inputs, targets, lambda gradients: gradients * factors.view(-1, 1, 1))
        heads = head_gradients(network, step.heads, factors, self.head_weight)
        return StepGradients(clipped(step.shared, self.clip), heads, step.losses, factors)
