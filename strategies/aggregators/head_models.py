"""Heads by model aggregation, whatever the aggregator does with the backbone."""

from __future__ import annotations

import dataclasses

from fedmtl.errors import ConfigError
from fedmtl.protocol import Update
from strategies.aggregators.calibrated import CalibratedAggregator
from strategies.aggregators.changed import ChangedUpdates
from strategies.core.kinds import Aggregator, Step
from strategies.core.part import parts_within


class HeadModels(ChangedUpdates):
    """Another aggregator that adds updates is given, for heads, what adds up to a mean of the clients' heads.

    With the head V of a task, shape [outputs, width + 1], that client i started from at version s_i, the update's part
    that moves V is exchanged

        Delta_i  ->  V[s_i] + Delta_i - V[t],    so that    V[t+1] = V[t] + sum_i p_i (V_i - V[t])

    is a mean of heads if the p_i of the owners sum to at most 1. Without staleness nothing changes, to the bit.

    It matters for heads that every client fits to its backbone, so that Delta_i leads all the way from V[s_i] to where
    the head should be, V*. Where updates are added, the way is then gone again by each update that was sent before the
    first of them was applied. With weight p in all and a staleness of tau throughout,

        V[t+1] = V[t] + p (V* - V[t-tau])    is stable only for p < 2 sin(pi / (4 tau + 2)),
        V[t+1] = V[t] + p (V* - V[t])        for all p <= 1

    (the first: S. A. Levin and R. M. May, "A note on difference-delay equations", 1976).

    Parameters
    ----------
    base
        Adds updates to the model.

    Raises
    ------
    ConfigError
        If the base adds an update's head more than once.

    Examples
    --------
    A client has led the head from 0 to 1. Meanwhile another has led it there, too, so that both together go too far:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator, HeadModels
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> old, new = toy_model([0.0, 0.0], heads=(1,)), toy_model([0.0, 1.0], version=1, heads=(1,))
    >>> step = Step.of(new, [toy_update(0, [0.5, 1.0], base_version=0)], earlier=[old])
    >>> adding = GradientAggregator(Uniform())
    >>> adding.aggregate(step)[0], HeadModels(adding).aggregate(step)[0]
    (tensor([0.5000, 2.0000]), tensor([0.5000, 1.0000]))
    """

    def __init__(self, base: Aggregator) -> None:
        super().__init__(base)
        self.needs_bases = True
        self.averages_models = True
        if any(isinstance(part, CalibratedAggregator) for part in parts_within(base)):
            raise ConfigError(
                "balancing.head_aggregation = 'model' with CalibratedAggregator (CA2FL): it adds clients' last updates "
                "in every step, and a fitted head goes the same way again each time: set balancing.align = 0, head_step"
                " = 'gradient' and head_aggregation = 'strategy'"
            )
        if any("exact-updates" in part.needs for part in parts_within(base)):
            self.needs = {
                "fresh-updates": f"{type(base).__name__} counts on updates as they were made, and heads of stale ones "
                "are exchanged; set balancing.head_aggregation = 'strategy'"
            }

    def changed(self, update: Update, step: Step) -> Update:
        """The update with exchanged heads, if it is stale."""
        if update.base_version == step.model.version:
            return update
        base, current, delta = step.bases[update.base_version], step.model.vector, update.delta.clone()
        for task in update.tasks:
            head = step.model.layout.heads[task]
            delta[head] += base[head] - current[head]
        return dataclasses.replace(update, delta=delta)
