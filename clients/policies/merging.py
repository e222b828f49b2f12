"""The client's half of DIMAT: it merges its neighbours' models with its own, then trains.

The vectors ``neighbour/l`` are the neighbours' models and the terms ``weight/l`` their weights; the constants
``match``, ``examples`` and ``bn_data`` say how they are merged (:mod:`clients.techniques.merging`). The proximal term,
if the run has one, still pulls towards the client's model of before.
"""

from __future__ import annotations

from clients.policies.base import Adaptation, Observed, Plan, Probe
from clients.techniques.merging import Merging, merging_steps
from fedmtl.protocol import TrainOrder


class MergingAdaptation(Adaptation):
    """Merges before it trains."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, from the merged model."""
        neighbours = [
            (order.terms[f"weight/{name.partition('/')[2]}"], vector)
            for name, vector in order.vectors.items()
            if name.startswith("neighbour/")
        ]
        constants = order.constants
        technique = Merging(neighbours, constants["match"], constants["examples"], constants["bn_data"])
        return Plan(order.settings, technique=technique)

    def work(self, order: TrainOrder, steps: int, examples: int) -> float:
        """The steps, and forward passes: of each model to match them, and of the merged one for its batch norms."""
        models = 1 + len(order.vectors) if order.constants["match"] == "activations" else 0
        buffers = order.base.layout.buffers
        passes = models + int(buffers.stop > buffers.start)
        taken = min(examples, order.constants["examples"])
        return steps + merging_steps(passes, taken, order.settings.batch_size) if passes else steps
