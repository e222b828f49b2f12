"""The client's half of curricula: it trains on a share of its examples (:mod:`clients.techniques.curriculum`).

The term ``share`` says on how many, the constant ``order`` on which.
"""

from __future__ import annotations

import math

from clients.policies.base import Adaptation, Observed, Plan, Probe
from clients.techniques import Curriculum
from clients.techniques.curriculum import pool_size
from fedmtl.protocol import TrainOrder


class CurriculumAdaptation(Adaptation):
    """Scores the examples, and trains as many steps as ever on the pool."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, on the pool."""
        # The batches' stream must not be the pool's as well.
        technique = Curriculum(
            order.terms["share"], order.constants["order"], order.settings.batch_size, order.seed ^ 2
        )
        return Plan(order.settings, technique=technique)

    def work(self, order: TrainOrder, steps: int, examples: int) -> float:
        """To score an example is to go forward, a third of a step's work, once."""
        scored = order.constants["order"] != "random"
        if not scored or pool_size(examples, order.terms["share"], order.settings.batch_size) == examples:
            return steps
        return steps + math.ceil(examples / order.settings.batch_size) / 3
