"""The client's half of training on adversarial examples, by projected gradient ascent (FAL).

"Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv 1706.06083), as FAL's inner loop. From x' = x,
so many times, with the gradient d of the sum of the client's losses with respect to the inputs:

    x' <- clamp(project(x' + a sign(d)))            norm "inf": |x' - x| <= rho in every feature
    x' <- clamp(project(x' + a d / ||d||_2))        norm "two": ||x' - x||_2 <= rho for every example

The clamp keeps x' in the range of the client's own features; it cannot leave the ball, in which x lies, too.

Down: the constants ``rho``, ``attack_steps``, ``step_size`` (a as a share of rho) and ``norm``. Up: nothing beside the
update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe
from clients.policies.step_rule import Compute, StepRule, Workbench
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.passes import Passes
from fedmtl.errors import DataError
from fedmtl.protocol import TrainOrder

NormName = Literal["inf", "two"]


class AdversarialHalf(ClientHalf):
    """Trains on adversarial examples."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, on adversarial examples."""
        given = order.constants
        attack = Adversarial(given["rho"], given["attack_steps"], given["step_size"], given["norm"])
        return Plan(order.settings, step_rule=attack)

    def passes(self, order: TrainOrder, steps: int, examples: int, tasks: int) -> Passes:
        """Each step of the ascent goes forward, and back to the inputs alone."""
        ascents = steps * order.constants["attack_steps"] if order.constants["rho"] > 0 else 0
        return ascents * Passes(forward=2, heads=2)


class Adversarial(StepRule):
    """Trains on adversarial examples in place of the true ones.

    Parameters
    ----------
    rho
        Radius of the ball around an example, in units of a feature; 0 for the true examples.
    steps
        Steps of the ascent.
    step_size
        a, its step, as a share of rho.
    norm
        Of the ball.
    """

    def __init__(self, rho: float, steps: int, step_size: float, norm: NormName) -> None:
        self.rho = rho
        self.steps = steps
        self.step_size = step_size
        self.norm = norm
        self._range = (0.0, 0.0)

    def start(self, bench: Workbench) -> None:
        """Take the range of the client's features.

        Raises
        ------
        DataError
            If the features are no real numbers: tokens have no neighbourhood.
        """
        if not bench.features.is_floating_point():
            raise DataError(f"adversarial training needs real features, but these are {bench.features.dtype}")
        low, high = bench.features.aminmax()
        self._range = (low.item(), high.item())

    def gradients(
        self, compute: Compute, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]
    ) -> StepGradients:
        """The gradients on the adversarial batch."""
        return compute(self.attack(network, inputs, targets), targets)

    def attack(self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The adversarial batch, shape [batch, ...]."""
        if self.rho == 0:
            return inputs
        x, a = inputs, self.step_size * self.rho
        for _ in range(self.steps):
            d = network.input_gradient(x, targets)
            climb = d.sign_() if self.norm == "inf" else _to_length(d, 1.0)
            offset = x.add(climb, alpha=a).sub_(inputs)
            offset = offset.clamp_(-self.rho, self.rho) if self.norm == "inf" else _within(offset, self.rho)
            x = offset.add_(inputs).clamp_(*self._range)
        return x


def _lengths(vectors: Tensor) -> Tensor:
    """Each example's Euclidean norm, shaped to divide by."""
    lengths: Tensor = torch.linalg.vector_norm(vectors.flatten(1), dim=1)
    return lengths.view(-1, *[1] * (vectors.dim() - 1))


def _to_length(vectors: Tensor, length: float) -> Tensor:
    """Each example's vector at this length; a zero stays one."""
    lengths = _lengths(vectors)
    factors: Tensor = torch.where(lengths > 0, length / lengths, 0.0)
    return vectors * factors


def _within(vectors: Tensor, length: float) -> Tensor:
    """Each example's vector, shortened to this length where it is longer."""
    lengths = _lengths(vectors)
    return vectors * torch.where(lengths > length, length / lengths, 1.0)
