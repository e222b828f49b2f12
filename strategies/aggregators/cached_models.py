"""SAFA's aggregation: the mean of every client's latest model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators.client_vectors import ClientVectors, Share
from strategies.aggregators.storage import Cache, Kept, StorageName, new_storage
from strategies.core.kinds import Aggregator, Scheduler, Step
from strategies.schedulers.lag_tolerant import LagTolerant
from strategies.weightings.options import WeightBase, WeightBaseName


class CachedModels(Aggregator):
    """The mean of all clients' latest models, those included that have not reported (SAFA).

    ``w[t+1] = sum_k (n_k / n) cache_k`` over all clients, with a model for each (w[0] at first), shape [P]. Before the
    sum, ``cache_k = base_k + Delta_k`` for the updates that are not late, and ``cache_k = w[t]`` for the clients that
    the scheduler has given up waiting for; after it, the late ones' models are kept for the next step. A client that
    has not reported its examples yet counts as one with the mean of the others'.

    Parameters
    ----------
    scheduler
        The one that stands beside this; a :class:`strategies.schedulers.lag_tolerant.LagTolerant` says whom it has
        given up waiting for in the round that is being aggregated, others give up nobody.
    weight_base
        Whether n_k is the client's examples, or 1.
    cache
        Where the models are. ``"single"`` keeps the updates as they are, and the versions that they started from.

    Examples
    --------
    One of four clients has reported ``(5, 1)``; the models of the others are still the first one:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import CachedModels
    >>> from strategies.core.kinds import Step
    >>> from strategies.schedulers import LagTolerant
    >>> model = toy_model([1.0, 1.0])
    >>> aggregator = CachedModels(LagTolerant())
    >>> aggregator.prepare(model, seed=0)
    >>> aggregator.aggregate(Step.of(model, [toy_update(0, [4.0, 0.0])], clients=range(4)))
    (tensor([2., 1.]), (0.25,))
    """

    needs_bases = True
    averages_models = True
    no_rule = "its step is the mean of all clients' latest models, most of which are not among a step's updates"
    needs = MappingProxyType({"distinct-clients": "of two models of one client in a step, only the last would count"})

    def __init__(self, scheduler: Scheduler, *, weight_base: WeightBase = "data_size", cache: Cache = "single") -> None:
        self.scheduler = scheduler
        self.weight_base: WeightBaseName = weight_base
        self.cache: StorageName = cache
        self._caches: ClientVectors | None = None

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Every cache is the first model."""
        self._caches = ClientVectors(new_storage(self.cache), model.layout, model.vector)

    @property
    def caches(self) -> ClientVectors:
        """The cache: a vector of shape [P] for each client, the model that it last sent."""
        assert self._caches is not None, "prepare comes first"
        return self._caches

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Take the step. A late update's weight in it is 0."""
        late = [update for update in step.updates if update.key in step.late]
        if isinstance(self.scheduler, LagTolerant):
            self.caches.put(self.scheduler.deprecated, step.model.vector)
        self._keep([update for update in step.updates if update.key not in step.late], step)
        clients = len(step.ledger.known)
        vector = self.caches.mean(clients, step.model.vector)
        whole = self.caches.weight(clients)
        weights = tuple(0.0 if u.key in step.late else self._weight(u) / whole for u in step.updates)
        self._keep(late, step)
        return vector, weights

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """As proposed: the mean of all clients' latest."""
        return proposed

    def _keep(self, updates: Sequence[Update], step: Step) -> None:
        self.caches.report(
            [(u.client, Kept(u.delta, step.bases[u.base_version]), Share(self._weight(u), u.tasks)) for u in updates]
        )

    def _weight(self, update: Update) -> float:
        return float(update.examples) if self.weight_base == "data_size" else 1.0

    def state_dict(self) -> dict[str, Any]:
        """The cache with its sums."""
        return {"caches": self.caches.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.caches.load_state_dict(state["caches"])
