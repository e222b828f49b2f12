"""Batch-norm statistics by a rule of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from fedmtl.parameters import weighted_sum
from fedmtl.protocol import GlobalModel
from strategies.parts import Aggregator, Step

StatisticsRule = Literal["weighted_mean", "group_mean", "replace_single"]


class Statistics(Aggregator):
    """Another aggregator makes the step, and the floating-point buffers are set apart from it.

    ``"group_mean"`` sets them to the plain mean of the clients' buffers, so that a lone report overwrites them (the
    authors' code of FedCompass); ``"replace_single"`` has only a lone report overwrite them. What neither sets is as
    the other aggregator has it, which weights buffers like parameters; that is the rule ``"weighted_mean"``, for which
    this class is not needed. Counters of batches are no part of a model's vector and never averaged.

    Parameters
    ----------
    base
        Makes the step.
    rule
        Which of the two.
    """

    needs_bases = True

    def __init__(self, base: Aggregator, rule: Literal["group_mean", "replace_single"]) -> None:
        self.base = base
        self.rule = rule
        if rule == "replace_single":
            self.needs = {"groups": "no report would be a lone one, or each would be"}
        self.needs_bases = base.needs_bases or rule != "keep_server"
        self.averages_models = base.averages_models

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Prepare the base."""
        self.base.prepare(model, seed)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The base's step, with other buffers."""
        vector, weights = self.base.aggregate(step)
        part = step.model.layout.buffers
        if part.start < part.stop and (self.rule == "group_mean" or step.trigger == "single"):
            share = 1.0 / len(step.updates)
            models = [v[part] for u in step.updates for v in (self._base_of(step, u.base_version), u.delta)]
            vector[part] = weighted_sum(models, [share] * len(models), models[0].new_zeros(part.stop - part.start))
        return vector, weights

    @staticmethod
    def _base_of(step: Step, version: int) -> Tensor:
        return step.model.vector if version == step.model.version else step.bases[version]

    def state_dict(self) -> dict[str, Any]:
        """The base's state."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.base.load_state_dict(state)
