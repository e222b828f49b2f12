"""Clients that do as they are told."""

from __future__ import annotations

from clients.policies.base import Adaptation, Observed, Plan, Probe
from fedmtl.protocol import TrainOrder


class PlainAdaptation(Adaptation):
    """Trains with the order's settings: proximal term, momentum and all else are there."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings."""
        return Plan(order.settings)
