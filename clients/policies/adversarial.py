"""The client's half of FAL: training on adversarial examples (:mod:`clients.techniques.adversary`)."""

from __future__ import annotations

from clients.policies.base import Adaptation, Observed, Plan, Probe
from clients.techniques import Adversary
from fedmtl.protocol import TrainOrder


class AdversarialAdaptation(Adaptation):
    """The order's constants ``rho``, ``attack_steps``, ``step_size`` and ``norm`` say how examples are perturbed."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, on adversarial examples."""
        given = order.constants
        return Plan(
            order.settings,
            technique=Adversary(given["rho"], given["attack_steps"], given["step_size"], given["norm"]),
        )

    def work(self, order: TrainOrder, steps: int, examples: int) -> float:
        """A step of the ascent costs about as much as one of the descent."""
        return steps * (1 + order.constants["attack_steps"]) if order.constants["rho"] > 0 else steps
