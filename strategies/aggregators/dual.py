"""FedSpeed's server step: updates, and the mean of all clients' dual variables, are added to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fedmtl.parameters import cut, weighted_sum
from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators.ownership import combine_by_owner
from strategies.core.kinds import Aggregator, Step, Weighting


class DualAveraged(Aggregator):
    """Adds weighted updates, and the mean of all clients' dual variables (FedSpeed).

    ``w[t+1] = w[t] + sum_i p_i Delta_i + h`` with the mean ``h = (1/N) sum_i h_i`` of all clients' dual variables. A
    client adds its update to its own h_i (:mod:`clients.policies.dual_corrected`), so the server knows their mean
    without a word: ``h += (1/N) sum_{i in S} Delta_i``. With tasks that only some clients own, the others' h_i of their
    heads count as the zeros that they are. Batch-norm statistics have no h.

    Parameters
    ----------
    weighting
        Gives the p_i.

    Examples
    --------
    Beside their mean, a quarter of each update is added, for the mean dual variable of four clients has moved by it:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators.dual import DualAveraged
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> model = toy_model([0.0, 0.0])
    >>> aggregator = DualAveraged(Uniform())
    >>> aggregator.prepare(model, seed=0)
    >>> updates = [toy_update(0, [4.0, 0.0]), toy_update(1, [0.0, 4.0])]
    >>> aggregator.aggregate(Step.of(model, updates, clients=range(4)))[0]
    tensor([3., 3.])
    """

    provides = frozenset({"duals-mean"})
    no_rule = "the mean dual variable that it adds is a sum over all updates that ever came"
    needs = MappingProxyType(
        {
            "duals": "clients keep no dual variable whose mean it could be; take strategy.policy = 'dual-corrected'",
            "every-update": "a dual variable whose update is dropped is moved on the client alone; "
            "keep late updates (late = 'keep') and turn no stale ones down (max_staleness)",
            "exact-updates": "a dual variable that moves by another update than the server's is not in its mean",
        }
    )

    def __init__(self, weighting: Weighting) -> None:
        self.weighting = weighting
        self._dual: Tensor | None = None

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start with dual variables of zero."""
        self._dual = torch.zeros_like(model.vector)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Move the mean dual variable, and add it to the weighted updates."""
        assert self._dual is not None
        w, h, share = step.model.vector, self._dual, 1.0 / len(step.ledger.known)

        def combine(part: slice, updates: Sequence[Update], weights: Sequence[float]) -> Tensor:
            deltas = [cut(update.delta, part) for update in updates]
            change = weighted_sum(deltas, [share] * len(deltas))
            h[part] += change
            if len(set(weights)) == 1:
                # The same sum but for a factor: the updates need not be read again.
                return change.mul_(weights[0] / share).add_(w[part])
            return weighted_sum(deltas, weights, w[part])

        vector, weights = combine_by_owner(step, self.weighting, combine)
        part = step.model.layout.trainable
        vector[part] += h[part]
        return vector, weights

    def state_dict(self) -> dict[str, Any]:
        """The mean dual variable."""
        assert self._dual is not None
        return {"dual": self._dual.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._dual = state["dual"].clone()
