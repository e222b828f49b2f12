"""Weight decay of convolutions alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from clients.policies.step_rule import Compute, Technique
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork


class ConvolutionDecay(Technique):
    """Adds ``decay/2 ||w||^2`` to the local objective, w the weights of the convolutions.

    It is part of the gradient, so that it is clipped with it.

    Parameters
    ----------
    decay
        The factor.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def gradients(
        self, compute: Compute, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]
    ) -> StepGradients:
        """The gradients of the losses and of the term."""
        step = compute(inputs, targets)
        values = network.values[: len(network.shared)]
        shared = [
            gradient.add(value, alpha=self.decay) if value.dim() == 4 else gradient
            for gradient, value in zip(step.shared, values, strict=True)
        ]
        return dataclasses.replace(step, shared=shared)
