"""The client's half of plain training, which policies of the server alone have, too.

Down: nothing beside the settings. Up: nothing beside the update.
"""

from __future__ import annotations

from clients.policies.base import ClientHalf, Observed, Plan, Probe
from fedmtl.protocol import TrainOrder


class PlainHalf(ClientHalf):
    """Trains with the order's settings: proximal term, momentum and all else are there."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """Train with the order's settings."""
        return Plan(order.settings)
