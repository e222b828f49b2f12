"""Model aggregation: the clients' models are averaged."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedmtl.parameters import cut, weighted_sum
from fedmtl.protocol import Update
from strategies.aggregators.by_rule import statistics_by_rule, step_by_rule, weights_under
from strategies.aggregators.ownership import combine_by_owner
from strategies.core.kinds import Aggregator, Rule, Step, Weighting
from strategies.weightings.share import Capped


class ModelAggregator(Aggregator):
    """Averages the clients' models; weights that sum to less than 1 leave the rest to the current model.

    ``w[t+1] = (1 - sum_i p_i) w[t] + sum_i p_i w_i`` with the clients' models ``w_i = base_i + Delta_i``. With weights
    that sum to 1 this is the average of the clients' models, and stale ones pull the model back to where they started.
    It is computed as ``w[t] + sum_i p_i Delta_i + sum_v P_v (base_v - w[t])``, where P_v is the weight of all updates
    that started from the stale version v: a vector is read once for each update and once for each stale version, and
    without staleness the result equals gradient aggregation bit for bit.

    Parameters
    ----------
    weighting
        Gives the p_i. Where they sum to more than 1 they are divided by their sum, as the current model cannot count
        negatively (:class:`strategies.weightings.share.Capped`).

    Examples
    --------
    The second client has started at zeros and come to ``(0, 2)``: its model pulls both entries back.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import ModelAggregator
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> old, new = toy_model([0.0, 0.0]), toy_model([4.0, 4.0], version=1)
    >>> updates = [toy_update(0, [2.0, 0.0], base_version=1), toy_update(1, [0.0, 2.0], base_version=0)]
    >>> ModelAggregator(Uniform()).aggregate(Step.of(new, updates, earlier=[old]))
    (tensor([3., 3.]), (0.5, 0.5))
    """

    needs_bases = True
    averages_models = True
    no_rule = ""

    def __init__(self, weighting: Weighting) -> None:
        self.weighting = weighting
        self.rule: Rule | None = None

    def aggregate_by(self, rule: Rule) -> None:
        """``w[t+1] = w[t] + sum_i p_i rule(w_1 - w[t] ... w_K - w[t])``."""
        self.rule, self.weighting = rule, weights_under(rule, self.weighting)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The weighted mean of the clients' models, each its base and its update, or what the rule makes of them."""
        model = step.model

        def away(update: Update, part: slice) -> Tensor:
            """``w_i - w[t]``."""
            if update.base_version == model.version:
                return update.delta[part]
            return update.delta[part] + (step.bases[update.base_version][part] - model.vector[part])

        if self.rule is not None:
            return step_by_rule(self.rule, step, Capped(self.weighting), away)

        def combine(part: slice, updates: Sequence[Update], weights: Sequence[float]) -> Tensor:
            stale: dict[int, float] = {}
            for update, p in zip(updates, weights, strict=True):
                if update.base_version != model.version:
                    stale[update.base_version] = stale.get(update.base_version, 0.0) + p
            current = model.vector[part]
            vectors = [cut(update.delta, part) for update in updates]
            factors = list(weights)
            if stale:
                vectors += [step.bases[version][part] for version in stale] + [current]
                factors += [*stale.values(), -sum(stale.values())]
            return weighted_sum(vectors, factors, current)

        return combine_by_owner(step, Capped(self.weighting), combine)

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """The mean of the clients', or what the rule makes of them."""
        return statistics_by_rule(self.rule, step, weights)
