"""A client's lone report is aggregated by another rule than a group's step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedmtl.protocol import GlobalModel
from strategies.core.kinds import Aggregator, Step


class SinglesApart(Aggregator):
    """Steps with the trigger ``"single"`` go to one aggregator, all others to another (FedCompass's variants).

    Parameters
    ----------
    single, group
        The two.
    """

    needs = {"groups": "it would give every step to one of its two rules"}  # noqa: RUF012

    def __init__(self, single: Aggregator, group: Aggregator) -> None:
        self.single = single
        self.group = group
        self.needs_bases = single.needs_bases or group.needs_bases
        self.averages_models = single.averages_models or group.averages_models

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Prepare both."""
        self.single.prepare(model, seed)
        self.group.prepare(model, seed)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """As the trigger says."""
        return (self.single if step.trigger == "single" else self.group).aggregate(step)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"single": self.single.state_dict(), "group": self.group.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.single.load_state_dict(state["single"])
        self.group.load_state_dict(state["group"])
