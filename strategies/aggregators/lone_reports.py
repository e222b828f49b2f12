"""A client's lone report is aggregated by another rule than a group's step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from strategies.core.kinds import Aggregator, Step


class LoneReports(Aggregator):
    """A client's lone report goes to one aggregator, a group's step to another (FedCompass's variants).

    A lone report is a step with the trigger ``"single"``.

    Parameters
    ----------
    single, group
        The two.

    Examples
    --------
    An eighth of a lone report is added, and the whole mean of a group:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator, LoneReports
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> aggregator = LoneReports(GradientAggregator(Uniform(), server_rate=0.125), GradientAggregator(Uniform()))
    >>> for trigger in ("single", "all"):
    ...     aggregator.aggregate(Step.of(toy_model([0.0, 0.0]), [toy_update(0, [8.0, 8.0])], trigger=trigger))
    (tensor([1., 1.]), (1.0,))
    (tensor([8., 8.]), (1.0,))
    """

    no_rule = ""
    needs = {"groups": "it would give every step to one of its two rules"}  # noqa: RUF012

    def __init__(self, single: Aggregator, group: Aggregator) -> None:
        self.single = single
        self.group = group
        self.averages_models = single.averages_models or group.averages_models

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """As the trigger says."""
        return self._rule(step).aggregate(step)

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """As the trigger says."""
        return self._rule(step).statistics(step, proposed, weights)

    def _rule(self, step: Step) -> Aggregator:
        return self.single if step.trigger == "single" else self.group
