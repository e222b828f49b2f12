"""The client's half of FedGELA: it trains beneath a frozen classifier (:mod:`clients.techniques.frozen_classifier`)."""

from __future__ import annotations

from clients.policies.base import Adaptation, Observed, Plan, Probe
from clients.techniques.frozen_classifier import FrozenClassifier
from fedmtl.protocol import TrainOrder


class FrozenClassifierAdaptation(Adaptation):
    """The order's constant ``temperature`` divides the logits."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, with frozen heads."""
        return Plan(order.settings, technique=FrozenClassifier(order.constants["temperature"]))
