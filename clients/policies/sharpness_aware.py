"""The client's half of sharpness-aware steps: the gradient is taken where the loss is higher (SAM, DFedSAM).

"Sharpness-Aware Minimization for Efficiently Improving Generalization" (arXiv 2010.01412), as FedSpeed and DFedSAM
use it. With the gradient g1 of all the client's parameters together at w:

    e = rho g1 / ||g1||      climb of norm rho
    g2 = grad(w + e)         on the same batch
    g = (1 - mix) g1 + mix g2

A gradient that is zero or not finite points nowhere: the step is then taken with g1. With several tasks, g1 and g2
are what the balancer makes of them; a balancer that learns from step to step sees each batch twice.

Down: the constants ``rho`` and ``mix``. Up: nothing beside the update.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe
from clients.policies.step_rule import Compute, StepRule
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.protocol import TrainOrder


class SharpnessAwareHalf(ClientHalf):
    """Takes two gradients a step."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, with perturbed gradients."""
        return Plan(order.settings, step_rule=SharpnessAware(order.constants["rho"], order.constants["mix"]))

    def gradient_calls(self, order: TrainOrder, steps: int) -> int:
        """Two for each step."""
        return perturbed_calls(order.constants["rho"], steps)


class SharpnessAware(StepRule):
    """Two gradients a step.

    Parameters
    ----------
    rho
        Norm of the climb; 0 for plain steps, which cost one gradient.
    mix
        Share of the gradient at the perturbed point.
    """

    def __init__(self, rho: float, mix: float = 1.0) -> None:
        self.rho = rho
        self.mix = mix

    def gradients(
        self, compute: Compute, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]
    ) -> StepGradients:
        """The mixed gradient; losses, weights and all that was measured are those at w."""
        here = compute(inputs, targets)
        g1 = flat(here)
        # A norm of float32 entries may overflow where they do not; then, too, there is no direction.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(g1))).item()
        if self.rho == 0 or norm == 0 or not math.isfinite(norm):
            return here
        w = [value.clone() for value in network.values]
        torch._foreach_add_(network.values, g1, alpha=self.rho / norm)
        g2 = flat(compute(inputs, targets))
        torch._foreach_copy_(network.values, w)
        g = g2 if self.mix == 1 else list(torch._foreach_lerp(g1, g2, self.mix))
        shared = len(network.shared)
        return dataclasses.replace(here, shared=g[:shared], heads=network.by_head(g[shared:]))


def perturbed_calls(rho: float, steps: int) -> int:
    """How many gradients so many steps take."""
    return 2 * steps if rho > 0 else steps


def flat(step: StepGradients) -> list[Tensor]:
    """All gradients of a step, in the order of :attr:`TaskNetwork.values`."""
    return [*step.shared, *itertools.chain.from_iterable(step.heads)]
