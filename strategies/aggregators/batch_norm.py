"""Batch-norm statistics by a rule of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor

from fedmtl.components import Param
from strategies.core.kinds import Aggregator, Step

Rule = Literal["group_mean", "replace_single", "average", "keep_server", "as_parameters"]

GroupRule = Annotated[
    Literal["weighted_mean", "group_mean", "replace_single"], Param("batch-norm statistics; the code: group_mean")
]
"""What FedCompass offers in the option `statistics`."""

BatchNormBuffers = Annotated[
    Literal["as_parameters", "average", "keep_server"] | None,
    Param(
        "batch-norm statistics: like parameters (authors' code) within the range of the clients', their mean by "
        "weights divided by their sum, or never changed; unset, as with any strategy, their mean by the weights",
    ),
]
"""What FedQS offers in the option `bn_buffers`."""


class BatchNormStatistics(Aggregator):
    """Batch-norm statistics by a rule of their own.

    Another aggregator makes the step, and the floating-point buffers are set apart from it. ``"group_mean"`` sets them
    to the plain mean of the clients' buffers, so that a lone report overwrites them (the authors' code of FedCompass);
    ``"replace_single"`` has only a lone report overwrite them, and is as the other aggregator has it elsewhere;
    ``"average"`` sets them to the mean of the clients' buffers by the weights of their updates, divided by their sum;
    ``"keep_server"`` leaves the server's as they were at the start. ``"as_parameters"`` treats them as the other
    aggregator treats parameters, such as adding changes up (the authors' code of FedQS), but within the range of the
    clients' buffers: beyond it changes of stale clients, each of which leads all the way from where it started, add up
    to variances below zero and diverge. Without this class they are averaged by the weights of the updates
    (:meth:`strategies.core.step.Step.mean_statistics`). Counters of batches are no part of a model's vector and never
    averaged. A model without buffers is as ever.

    Parameters
    ----------
    base
        Makes the step.
    rule
        Which of the five.

    Examples
    --------
    The third number is a statistic. It becomes the mean of the clients', while the backbone goes half of the way:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import BatchNormStatistics, GradientAggregator
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> updates = [toy_update(0, [1.0, 1.0, 4.0]), toy_update(1, [1.0, 1.0, 2.0])]
    >>> step = Step.of(toy_model([0.0, 0.0, 1.0], buffers=1), updates)
    >>> adding = GradientAggregator(Uniform(), server_rate=0.5)
    >>> adding.aggregate(step)[0], BatchNormStatistics(adding, rule="average").aggregate(step)[0]
    (tensor([0.5000, 0.5000, 2.5000]), tensor([0.5000, 0.5000, 4.0000]))
    """

    no_rule = ""

    def __init__(self, base: Aggregator, *, rule: Annotated[Rule, Param("what is set apart")] = "group_mean") -> None:
        self.base = base
        self.rule = rule
        if rule == "replace_single":
            self.needs = {"groups": "no report would be a lone one, or each would be"}
        self.averages_models = base.averages_models

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The base's step, with other buffers."""
        vector, weights = self.base.aggregate(step)
        part = step.model.layout.buffers
        if part.start < part.stop:
            vector[part] = self._ruled(step, vector[part], weights)
        return vector, weights

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """As proposed: they follow the rule already."""
        return proposed

    def _ruled(self, step: Step, made: Tensor, weights: Sequence[float]) -> Tensor:
        """The buffers by the rule, from those that the base made of them."""
        if self.rule == "keep_server":
            return step.model.vector[step.model.layout.buffers]
        if self.rule == "as_parameters":
            values = step.sent_statistics()
            return made.clamp(min=values.amin(0), max=values.amax(0))
        if self.rule == "replace_single" and step.trigger != "single":
            return self.base.statistics(step, made, weights)
        return step.mean_statistics(self._shares(weights))

    def _shares(self, weights: Sequence[float]) -> list[float]:
        """What each client's buffers count: the same, or by the weights if any update has one."""
        total = math.fsum(weights)
        if self.rule != "average" or total <= 0.0:
            return [1.0 / len(weights)] * len(weights)
        return [weight / total for weight in weights]


def batch_norm_apart(base: Aggregator, rule: Rule | Literal["weighted_mean"] | None) -> Aggregator:
    """The aggregator with that rule; as it is where the statistics are averaged by the weights of the updates."""
    return base if rule is None or rule == "weighted_mean" else BatchNormStatistics(base, rule=rule)
