"""CA2FL's aggregation: each update is calibrated by its client's last one, and all clients' last ones are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedmtl.parameters import cut, weighted_sum
from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators.client_vectors import ClientVectors, Share
from strategies.aggregators.gradient import ServerRate
from strategies.aggregators.ownership import combine_by_owner
from strategies.aggregators.storage import Cache, Kept, StorageName, new_storage
from strategies.core.kinds import Aggregator, Step, Weighting


class CalibratedAggregator(Aggregator):
    """Updates are calibrated with the last ones of all clients (CA2FL).

    ``w <- w + eta_g v`` with ``v = (1/N) sum_j h_j + sum_i p_i (Delta_i - h_i)``, then ``h_i <- Delta_i``. h_j, of
    shape [P], is the last update of client j, 0 before its first; N counts every client that was ever there. A head
    takes the h_j of the clients that own its task.

    Parameters
    ----------
    weighting
        Gives the p_i, which sum to 1.
    server_rate
        eta_g.
    cache
        Where the N vectors h_j are.

    Examples
    --------
    In the second step only client 1 reports; half of client 0's last update is added once more, as the mean has it.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import CalibratedAggregator
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> model = toy_model([0.0, 0.0])
    >>> aggregator = CalibratedAggregator(Uniform())
    >>> aggregator.prepare(model, seed=0)
    >>> aggregator.aggregate(Step.of(model, [toy_update(0, [2.0, 0.0]), toy_update(1, [0.0, 2.0])]))[0]
    tensor([1., 1.])
    >>> aggregator.aggregate(Step.of(model, [toy_update(1, [0.0, 6.0], job=1)], clients=[0]))[0]
    tensor([1., 5.])
    """

    no_rule = "its step adds the last updates of all clients, most of which are not among those at hand"

    def __init__(self, weighting: Weighting, *, server_rate: ServerRate = 1.0, cache: Cache = "single") -> None:
        self.weighting = weighting
        self.server_rate = server_rate
        self.cache: StorageName = cache
        self._last: ClientVectors | None = None

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start with every ``h_j = 0``."""
        self._last = ClientVectors(new_storage(self.cache), model.layout, torch.zeros_like(model.vector))

    @property
    def last(self) -> ClientVectors:
        """The h_j: each client's last update, shape [P], 0 before its first."""
        assert self._last is not None, "prepare comes first"
        return self._last

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Take the step, and keep the updates."""
        eta, w = self.server_rate, step.model.vector
        mean = self.last.mean(len(step.ledger.known))
        h = {update.client: self.last.get(update.client) for update in step.updates}
        change = self.last.report([(u.client, Kept(u.delta), Share(1.0, u.tasks)) for u in step.updates])

        def combine(part: slice, updates: Sequence[Update], weights: Sequence[float]) -> Tensor:
            if change is not None and len(set(weights)) == 1:
                # No second pass: what the sum of the h_j changed by is the sum of the Delta_i - h_i.
                moved = torch.add(w[part], change[part], alpha=eta * weights[0], out=change[part])
                return moved.add_(mean[part], alpha=eta)
            vectors = [cut(v, part) for v in [u.delta for u in updates] + [h[u.client] for u in updates]]
            factors = [eta * p for p in weights] + [-eta * p for p in weights]
            return weighted_sum([*vectors, mean[part]], [*factors, eta], w[part])

        return combine_by_owner(step, self.weighting, combine)

    def state_dict(self) -> dict[str, Any]:
        """The h_j with their sums."""
        return {"last": self.last.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.last.load_state_dict(state["last"])
