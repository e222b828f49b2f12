"""A client's lone report is aggregated by another rule than a group's step."""

from __future__ import annotations

from torch import Tensor

from strategies.core.kinds import Aggregator, Step


class LoneReports(Aggregator):
    """A client's lone report goes to one aggregator, a group's step to another (FedCompass's variants).

    A lone report is a step with the trigger ``"single"``.

    Parameters
    ----------
    single, group
        The two.
    """

    needs = {"groups": "it would give every step to one of its two rules"}  # noqa: RUF012

    def __init__(self, single: Aggregator, group: Aggregator) -> None:
        self.single = single
        self.group = group
        self.averages_models = single.averages_models or group.averages_models

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """As the trigger says."""
        return (self.single if step.trigger == "single" else self.group).aggregate(step)
