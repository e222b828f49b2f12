"""Gradient aggregation: updates are added to the current model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fedmtl.components import Param
from fedmtl.parameters import cut, weighted_sum
from fedmtl.protocol import Update
from strategies.aggregators.ownership import combine_by_owner
from strategies.core.kinds import Aggregator, Step, Weighting

SERVER_RATE = Param("eta_g, the server's step", gt=0)
ServerRate = Annotated[float, SERVER_RATE]


class GradientAggregator(Aggregator):
    """Adds weighted updates to the current model.

    ``w[t+1] = w[t] + eta_g sum_i p_i Delta_i``: a stale update bends the current trajectory, but does not reset it.

    Parameters
    ----------
    weighting
        Gives the p_i.
    server_rate
        eta_g, the server's step.
    """

    def __init__(self, weighting: Weighting, *, server_rate: ServerRate = 1.0) -> None:
        self.weighting = weighting
        self.server_rate = server_rate

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Add the weighted updates, in one pass over them."""

        def combine(part: slice, updates: Sequence[Update], weights: Sequence[float]) -> Tensor:
            deltas = [cut(update.delta, part) for update in updates]
            return weighted_sum(deltas, [self.server_rate * p for p in weights], step.model.vector[part])

        return combine_by_owner(step, self.weighting, combine)
