"""FedSpeed's server step: the mean of all clients' dual variables is added to another aggregator's model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fedmtl.parameters import weighted_sum
from fedmtl.protocol import GlobalModel
from strategies.parts import Aggregator, Step


class DualAveraged(Aggregator):
    """``w[t+1] = base(w[t]) + h``, with the mean ``h = (1/N) sum_i h_i`` of the dual variables of all N clients.

    A client adds its update to its own h_i (:mod:`clients.adaptation.sharpness`), so the server knows their mean
    without being told: ``h += (1/N) sum_{i in S} Delta_i``. With tasks that only some clients own, the others' h_i of
    their heads count as the zeros that they are.

    Parameters
    ----------
    base
        Makes the model of the updates.
    """

    provides = frozenset({"duals-mean"})
    needs = MappingProxyType(
        {
            "duals": "clients keep no dual variable whose mean it could be; take strategy.policy = 'dual-corrected'",
            "every-update": "a dual variable whose update is dropped is moved on the client alone",
            "exact-updates": "a dual variable that moves by another update than the server's is not in its mean",
        }
    )

    def __init__(self, base: Aggregator) -> None:
        self.base = base
        self.needs_bases = base.needs_bases
        self.averages_models = base.averages_models
        self._dual: Tensor | None = None

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start with dual variables of zero."""
        self.base.prepare(model, seed)
        self._dual = torch.zeros_like(model.vector)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Move the mean dual variable, and add it; batch-norm statistics have none."""
        assert self._dual is not None
        vector, weights = self.base.aggregate(step)
        share = 1.0 / len(step.ledger.known)
        deltas = [update.delta for update in step.updates]
        self._dual = weighted_sum(deltas, [share] * len(deltas), self._dual)
        part = step.model.layout.trainable
        vector[part] += self._dual[part]
        return vector, weights

    def state_dict(self) -> dict[str, Any]:
        """The mean dual variable, and the base's state."""
        return {"base": self.base.state_dict(), "dual": self._dual}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.base.load_state_dict(state["base"])
        self._dual = state["dual"]
