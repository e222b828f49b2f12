"""Batch-norm statistics by a rule of their own."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor

from fedmtl.components import Param
from fedmtl.parameters import weighted_sum
from strategies.core.kinds import Aggregator, Step

Rule = Literal["group_mean", "replace_single", "average", "keep_server"]

GroupRule = Annotated[
    Literal["weighted_mean", "group_mean", "replace_single"], Param("batch-norm statistics; the code: group_mean")
]
"""What FedCompass offers in the option `statistics`."""

BatchNormBuffers = Annotated[
    Literal["as_parameters", "average", "keep_server"],
    Param(
        "batch-norm statistics: like parameters (authors' code), the mean of the clients', or never changed; nothing "
        "for a model without",
    ),
]
"""What FedQS offers in the option `bn_buffers`."""


class BatchNormStatistics(Aggregator):
    """Batch-norm statistics by a rule of their own.

    Another aggregator makes the step, and the floating-point buffers are set apart from it. ``"group_mean"`` sets them
    to the plain mean of the clients' buffers, so that a lone report overwrites them (the authors' code of FedCompass);
    ``"replace_single"`` has only a lone report overwrite them; ``"average"`` sets them to the mean of the clients'
    buffers by the weights of their updates, also where updates are added to the model; ``"keep_server"`` leaves the
    server's as they were at the start. What none of these sets is as the other aggregator has it, which treats buffers
    like parameters: for that :func:`batch_norm_apart` leaves this class out. Counters of batches are no part of a
    model's vector and never averaged. A model without buffers is as ever.

    Parameters
    ----------
    base
        Makes the step.
    rule
        Which of the four.

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
        self.needs_bases = rule != "keep_server"
        self.averages_models = base.averages_models

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The base's step, with other buffers."""
        vector, weights = self.base.aggregate(step)
        part = step.model.layout.buffers
        if part.start == part.stop or (self.rule == "replace_single" and step.trigger != "single"):
            return vector, weights
        if self.rule == "keep_server":
            vector[part] = step.model.vector[part]
            return vector, weights
        shares = self._shares(weights)
        models = [v[part] for u in step.updates for v in (self._base_of(step, u.base_version), u.delta)]
        twice = [share for share in shares for _ in range(2)]
        vector[part] = weighted_sum(models, twice, models[0].new_zeros(part.stop - part.start))
        return vector, weights

    def _shares(self, weights: tuple[float, ...]) -> list[float]:
        """What each client's buffers count: the same, or by the weights if any update has one."""
        total = math.fsum(weights)
        if self.rule != "average" or total <= 0.0:
            return [1.0 / len(weights)] * len(weights)
        return [weight / total for weight in weights]

    @staticmethod
    def _base_of(step: Step, version: int) -> Tensor:
        return step.model.vector if version == step.model.version else step.bases[version]


def batch_norm_apart(base: Aggregator, rule: Rule | Literal["weighted_mean", "as_parameters"]) -> Aggregator:
    """The aggregator with that rule; as it is where the statistics are to be treated like parameters."""
    if rule == "weighted_mean" or rule == "as_parameters":
        return base
    return BatchNormStatistics(base, rule=rule)
