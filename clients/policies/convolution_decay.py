"""The client's half of a decay of the convolutions' weights, and of nothing else (FedAT as FedQS's authors have it).

Down: the constant ``decay``, its factor. Up: nothing beside the update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe
from clients.policies.step_rule import Compute, StepRule
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.protocol import TrainOrder


class ConvolutionDecayHalf(ClientHalf):
    """Trains with the decay as part of every gradient."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, with the decay."""
        return Plan(order.settings, step_rule=ConvolutionDecay(order.constants["decay"]))


class ConvolutionDecay(StepRule):
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
