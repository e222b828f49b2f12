"""FedAT's aggregation: a model for each tier, and slow tiers weighted by the fast ones' counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.parameters import weighted_sum
from fedmtl.protocol import GlobalModel, Update
from fedmtl.restoring import checked_tensor
from strategies.aggregators.model import ModelAggregator
from strategies.core.kinds import Aggregator, Scheduler, Step, Weighting
from strategies.schedulers.tiered import Tiered


class TierModels(Aggregator):
    """A model for each tier, and their mean in which slow tiers have the fast ones' counts (FedAT).

    ``w = sum_m (T_{M+1-m} / T) w_m``, with ``w_m = sum_i p_i w_i`` over the latest round of tier m. T_m counts the
    rounds of tier m (1 the fastest), and ``T = sum_m T_m``. Until every tier has reported, those that have count the
    same. A tier's model has shape [P].

    Parameters
    ----------
    weighting
        Gives the p_i inside a tier, which sum to 1.
    scheduler
        The one that stands beside this; it has the tiers.

    Raises
    ------
    ConfigError
        If it has none.

    Examples
    --------
    The fast tier has reported three times, the slow one once. So the slow one's model has the larger weight:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import TierModels
    >>> from strategies.core.kinds import Step
    >>> from strategies.schedulers import Tiered
    >>> from strategies.weightings import Uniform
    >>> model, scheduler = toy_model([0.0, 0.0]), Tiered(tiers=2)
    >>> scheduler.prepare(model, seed=0)
    >>> orders = scheduler.begin([0, 1], now=0.0)
    >>> for client, seconds in [(0, 1.0), (1, 3.0)]:
    ...     decision = scheduler.on_update(toy_update(client, arrived_at=seconds), now=seconds)
    >>> aggregator = TierModels(Uniform(), scheduler)
    >>> for client, delta in [(0, [4.0, 0.0])] * 3 + [(1, [0.0, 4.0])]:
    ...     vector, weights = aggregator.aggregate(Step.of(model, [toy_update(client, delta)]))
    >>> vector, weights
    (tensor([1., 3.]), (0.75,))
    """

    needs_bases = True
    averages_models = True

    no_rule = "its step is a mean of the tiers' models, of which most are older than the updates at hand"

    def __init__(self, weighting: Weighting, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Tiered):
            raise ConfigError(
                f"TierModels with {type(scheduler).__name__}: it needs 'tiers', which none of them has; take "
                "strategy.scheduler.name = 'tiered'"
            )
        self.inside = ModelAggregator(weighting)
        self.scheduler = scheduler
        self._models: dict[int, Tensor] = {}
        self._rounds: dict[int, int] = {}

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """No tier has reported."""
        self._models, self._rounds = {}, {}

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Average inside the tiers that report, then across all; an update's weight is the product of both."""
        reports: dict[int, list[Update]] = {}
        for update in step.updates:
            reports.setdefault(self.scheduler.tier_of(update.client), []).append(update)
        share: dict[Any, float] = {}
        for tier, updates in reports.items():
            self._models[tier], inside = self.inside.aggregate(dataclasses.replace(step, updates=updates))
            self._rounds[tier] = self._rounds.get(tier, 0) + 1
            share.update(zip((update.key for update in updates), inside, strict=True))
        order = sorted(self._models)
        across = tier_weights([self._rounds[tier] for tier in order], self.scheduler.tiers)
        vector = weighted_sum([self._models[tier] for tier in order], across)
        weight_of = dict(zip(order, across, strict=True))
        return vector, tuple(share[u.key] * weight_of[self.scheduler.tier_of(u.client)] for u in step.updates)

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """As proposed: the mean of all tiers' latest."""
        return proposed

    def state_dict(self) -> dict[str, Any]:
        """The tiers' models and counts."""
        order = sorted(self._models)
        return {
            "tiers": order,
            "models": [self._models[tier] for tier in order],
            "rounds": [self._rounds[tier] for tier in order],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        tiers = [int(tier) for tier in state["tiers"]]
        self._models = dict(zip(tiers, map(checked_tensor, state["models"]), strict=True))
        self._rounds = dict(zip(tiers, map(int, state["rounds"]), strict=True))


def tier_weights(rounds: Sequence[int], tiers: int) -> list[float]:
    """Weights that sum to 1 from the rounds of those tiers that have reported, the fastest first."""
    if len(rounds) < tiers:
        return [1.0 / len(rounds)] * len(rounds)
    total = sum(rounds)
    return [count / total for count in reversed(rounds)]
