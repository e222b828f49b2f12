"""The client's half of curricula: it trains on some of its examples first.

"When Do Curricula Work in Federated Learning?" (arXiv 2212.12712). A client sorts its n examples by a score, the loss
under the model that it was sent, and trains on the first

    m = max(min(n, batch size), ceil(share n))

of them; the server opens the pool by raising the share to 1. Once it is open, nothing is scored or sorted.

Down: the term ``share`` and the constant ``order``, which says what examples come first. Up: nothing beside the update.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe
from clients.policies.step_rule import StepRule, Workbench
from fedmtl.balancing.passes import NO_PASSES, Passes, batches_of
from fedmtl.protocol import TrainOrder

OrderName = Literal["easy_first", "hard_first", "random"]


class CurriculumHalf(ClientHalf):
    """Scores the examples, and trains as many steps as ever on the pool."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, on the pool."""
        # The batches' stream must not be the pool's as well.
        pool = Curriculum(order.terms["share"], order.constants["order"], order.settings.batch_size, order.seed ^ 2)
        return Plan(order.settings, step_rule=pool)

    def passes(self, order: TrainOrder, steps: int, examples: int, tasks: int) -> Passes:
        """To score an example is to go forward once."""
        size = order.settings.batch_size
        scored = order.constants["order"] != "random"
        if not scored or pool_size(examples, order.terms["share"], size) == examples:
            return NO_PASSES
        return batches_of(examples, size) * Passes(forward=1, heads=1)


class Curriculum(StepRule):
    """Trains on a share of the examples.

    Parameters
    ----------
    share
        Of the examples, in (0, 1].
    order
        Which come first: those with the smallest loss, those with the largest, or any (the control).
    least
        Examples that the pool has at least, if the client has so many.
    seed
        Of the random order.
    """

    def __init__(self, share: float, order: OrderName, least: int, seed: int) -> None:
        self.share = share
        self.order = order
        self.least = least
        self.seed = seed

    def start(self, bench: Workbench) -> Tensor | None:
        """The positions of the pool."""
        n = len(bench.features)
        m = pool_size(n, self.share, self.least)
        if m == n:
            return None
        if self.order == "random":
            return torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[:m]
        return torch.argsort(bench.losses(), descending=self.order == "hard_first", stable=True)[:m]


def pool_size(n: int, share: float, least: int) -> int:
    """m, at most n."""
    return min(n, max(least, math.ceil(share * n)))
