"""What a server step starts from, and the mean of the clients' batch-norm statistics.

Statistics are values: a client's are those that it was sent plus what its update changes them by, and a server's are
a mean of clients'. Adding updates up instead, as with parameters, overshoots as soon as updates are stale or scaled,
and a variance below zero is none (docs/decisions/0011-statistics-are-values.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedmtl.parameters import weighted_sum
from fedmtl.protocol import GlobalModel, JobKey, Update
from strategies.core.ledger import Ledger


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a server step starts from.

    Attributes
    ----------
    model
        The newest model; its version is still the one before the step.
    updates
        The updates that go in, in order; a client may occur twice.
    bases
        For each version that an update started from, that version's vector; empty unless the aggregator asks for them.
    trigger, late
        From the scheduler's decision.
    ledger
        It already counts these updates as aggregated.
    statistics
        For each version that an update started from, that version's floating-point buffers, where `bases` lacks it.

    Examples
    --------
    A fresh update and a stale one:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> old, new = toy_model([0.0, 0.0], version=0), toy_model([1.0, 1.0], version=1)
    >>> step = Step.of(new, [toy_update(0, base_version=1), toy_update(1, base_version=0)], earlier=[old])
    >>> [step.model.version - update.base_version for update in step.updates]
    [0, 1]
    >>> step.bases[0], step.ledger.frequency(1)
    (tensor([0., 0.]), 0.5)
    """

    model: GlobalModel
    updates: Sequence[Update]
    bases: Mapping[int, Tensor]
    trigger: str
    late: frozenset[JobKey]
    ledger: Ledger
    statistics: Mapping[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: GlobalModel,
        updates: Sequence[Update],
        *,
        earlier: Iterable[GlobalModel] = (),
        clients: Iterable[int] = (),
        trigger: str = "full",
        late: Iterable[JobKey] = (),
    ) -> Step:
        """A run's first step, for trying a part out by itself (:mod:`fedmtl.toy` has models and updates).

        The ledger knows the updates' senders and further `clients`; `earlier` models are what stale updates started
        from.
        """
        ledger = Ledger()
        ledger.met((*clients, *(update.client for update in updates)))
        for update in updates:
            ledger.received(update)
        ledger.applied(updates)
        bases = {known.version: known.vector for known in (*earlier, model)}
        return cls(model, updates, bases, trigger, frozenset(late), ledger)

    def sent_statistics(self) -> Tensor:
        """The floating-point buffers that each update's client has ended with, shape [updates, buffers]."""
        part = self.model.layout.buffers
        return torch.stack([self._statistics_of(u.base_version) + u.delta[part] for u in self.updates])

    def mean_statistics(self, weights: Sequence[float]) -> Tensor:
        """The mean of the clients' floating-point buffers by these weights, shape [buffers].

        ``(1 - sum_i p_i) s + sum_i p_i s_i`` with the server's s and the clients' s_i, as models are averaged
        (:class:`strategies.aggregators.model.ModelAggregator`): weights that sum to more than 1 are divided by their
        sum, and what they leave of 1 is the server's own. It lies between the least and the largest of the values that
        have a weight, also after rounding.

        Examples
        --------
        A client has come from 4, which is two versions old, to 1, where the server is now:

        >>> from fedmtl.toy import toy_model, toy_update
        >>> from strategies.core.step import Step
        >>> old, new = toy_model([0.0, 4.0], buffers=1), toy_model([0.0, 1.0], version=2, buffers=1)
        >>> step = Step.of(new, [toy_update(0, [0.0, -3.0], base_version=0)], earlier=[old])
        >>> step.sent_statistics(), step.mean_statistics([0.5])
        (tensor([[1.]]), tensor([1.]))
        """
        part, now = self.model.layout.buffers, self.model.version
        current = self.model.vector[part]
        p = [max(weight, 0.0) for weight in weights]
        total = math.fsum(p)
        if total <= 0.0:
            return current.clone()
        if total > 1.0 + 1e-9:
            p, total = [weight / total for weight in p], 1.0
        # As changes, so that what no client changes stays as it is, bit for bit.
        vectors, factors = [update.delta[part] for update in self.updates], list(p)
        stale: dict[int, float] = {}
        for update, weight in zip(self.updates, p, strict=True):
            if update.base_version != now:
                stale[update.base_version] = stale.get(update.base_version, 0.0) + weight
        if stale:
            vectors += [*map(self._statistics_of, stale), current]
            factors += [*stale.values(), -sum(stale.values())]
        mean = weighted_sum(vectors, factors, current)
        values = [value for value, weight in zip(self.sent_statistics(), p, strict=True) if weight > 0.0]
        if total < 1.0 - 1e-9:
            values.append(current)
        return mean.clamp(min=torch.stack(values).amin(0), max=torch.stack(values).amax(0))

    def _statistics_of(self, version: int) -> Tensor:
        part = self.model.layout.buffers
        if version == self.model.version:
            return self.model.vector[part]
        return self.bases[version][part] if version in self.bases else self.statistics[version]
