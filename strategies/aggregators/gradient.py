"""Gradient aggregation: updates are added to the current model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fedmtl.components import Param
from fedmtl.parameters import cut, weighted_sum
from fedmtl.protocol import Update
from strategies.aggregators.by_rule import statistics_by_rule, step_by_rule, weights_under
from strategies.aggregators.ownership import combine_by_owner
from strategies.core.kinds import Aggregator, Rule, Step, Weighting

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

    Examples
    --------
    The second update has started at another model, which makes no difference:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> model = toy_model([4.0, 4.0], version=1)
    >>> updates = [toy_update(0, [2.0, 0.0], base_version=1), toy_update(1, [0.0, 2.0], base_version=0)]
    >>> GradientAggregator(Uniform()).aggregate(Step.of(model, updates))
    (tensor([5., 5.]), (0.5, 0.5))
    """

    no_rule = ""

    def __init__(self, weighting: Weighting, *, server_rate: ServerRate = 1.0) -> None:
        self.weighting = weighting
        self.server_rate = server_rate
        self.rule: Rule | None = None

    def aggregate_by(self, rule: Rule) -> None:
        """``w[t+1] = w[t] + eta_g sum_i p_i rule(Delta_1 ... Delta_K)``."""
        self.rule, self.weighting = rule, weights_under(rule, self.weighting)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Add the weighted updates, in one pass over them, or what the rule makes of them."""
        if self.rule is not None:
            return step_by_rule(self.rule, step, self.weighting, lambda u, part: u.delta[part], rate=self.server_rate)

        def combine(part: slice, updates: Sequence[Update], weights: Sequence[float]) -> Tensor:
            deltas = [cut(update.delta, part) for update in updates]
            return weighted_sum(deltas, [self.server_rate * p for p in weights], step.model.vector[part])

        return combine_by_owner(step, self.weighting, combine)

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """The mean of the clients', or what the rule makes of them."""
        return statistics_by_rule(self.rule, step, weights)
