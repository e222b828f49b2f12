"""A vector for every client, for the methods that demand it, and the mean over all clients at no cost per client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedmtl.parameters import ParameterLayout, cut, weighted_sum
from fedmtl.restoring import checked_tensor
from strategies.aggregators.storage import Kept, Storage

_BLOCK = 1 << 16
"""Entries that a sum in double precision is changed by at a time, so that their conversion stays in the cache."""


class Share(NamedTuple):
    """How much a client's vector counts (a positive weight), and in which heads."""

    weight: float
    tasks: tuple[int, ...]


_Term = tuple[Kept, Share, float]
"""A vector, how it counts in a sum over clients, and the sign with which it does."""


class ClientVectors:
    """One vector for each client, and their weighted mean, kept up to date by one pass over what changes.

    The mean is taken slice by slice: a head's over the clients that own its task. A client that has not reported yet
    has the start vector (or what it was given since), the mean weight of those that have, and counts as an owner of
    everything.

    Parameters
    ----------
    storage
        Where the vectors are.
    layout
        Their layout.
    start
        What every client has at first, shape [P].

    Examples
    --------
    Of four clients one has reported; the others' vectors are zeros.

    >>> import torch
    >>> from fedmtl.toy import toy_layout
    >>> from strategies.aggregators.client_vectors import ClientVectors, Share
    >>> from strategies.aggregators.storage import InMemory, Kept
    >>> vectors = ClientVectors(InMemory(), toy_layout(2), start=torch.zeros(2))
    >>> change = vectors.report([(7, Kept(torch.tensor([4.0, 8.0])), Share(1.0, tasks=(0,)))])
    >>> vectors.get(7), vectors.get(8), vectors.mean(clients=4)
    (tensor([4., 8.]), tensor([0., 0.]), tensor([1., 2.]))
    """

    def __init__(self, storage: Storage, layout: ParameterLayout, start: Tensor) -> None:
        self._storage = storage
        self._layout = layout
        self._start = start
        # In double precision, for they are changed again and again and never formed anew.
        self._reported = torch.zeros_like(start, dtype=torch.float64)  # sum of weight times vector
        self._silent = torch.zeros_like(self._reported)  # sum of the vectors given to clients that did not report
        self._shares: dict[int, Share] = {}  # of those that reported
        self._weight = 0.0
        self._owners = [0.0] * len(layout.heads)  # sum of the weights of a head's owners

    def get(self, client: int) -> Tensor:
        """The client's vector, shape [P]; not to be written to."""
        vector = self._storage.get(client)
        return self._start if vector is None else vector.whole

    def put(self, clients: Iterable[int], vector: Tensor) -> None:
        """Give all of these clients this vector; their weights and tasks stay what they are."""
        reported: list[_Term] = []
        silent: list[_Term] = []
        for client in clients:
            share = self._shares.get(client, self._silent_share)
            terms = reported if client in self._shares else silent
            if (before := self._storage.get(client)) is not None:
                terms.append((before, share, -1.0))
            terms.append((self._storage.put(client, Kept(None, vector)), share, 1.0))
        self._add(self._reported, reported)
        self._add(self._silent, silent)

    def report(self, reports: Sequence[tuple[int, Kept, Share]]) -> Tensor | None:
        """Change clients' vectors and shares.

        Returns
        -------
        Tensor or None
            ``sum_i weight_i (new_i - old_i)``, shape [P], with an old_i of 0 at the client's first report and each
            slice over its owners. None where it is not at hand: a client reports twice, or with another share than
            last time, or there are bases.
        """
        plain = len({client for client, _, _ in reports}) == len(reports)
        terms: list[_Term] = []
        for client, vector, share in reports:
            old, before = self._shares.get(client), self._storage.get(client)
            if old is not None:
                self._count(old, -1.0)
            if before is not None:
                if old is None:
                    self._add(self._silent, [(before, self._silent_share, -1.0)])
                else:
                    terms.append((before, old, -1.0))
            plain = plain and old in (None, share)
            terms.append((self._storage.put(client, vector), share, 1.0))
            self._shares[client] = share
            self._count(share, 1.0)
        change = self._add(self._reported, terms)
        return change if plain and all(vector.base is None for vector, _, _ in terms) else None

    def mean(self, clients: int, current: Tensor | None = None) -> Tensor:
        """The mean over so many clients, shape [P]; a slice that nobody has is the current model's, or 0."""
        silent = clients - len(self._shares)
        result = torch.empty_like(self._start)
        masses = [self._weight, *self._owners, self._weight]
        for part, mass in zip(self._parts, masses, strict=True):
            if (total := mass + self._typical * silent) > 0.0:
                result[part].copy_(self._total(part, silent)).div_(total)
            else:
                result[part] = 0.0 if current is None else current[part]
        return result

    def weight(self, clients: int) -> float:
        """The sum of the weights of so many clients."""
        return self._weight + self._typical * (clients - len(self._shares))

    @property
    def _typical(self) -> float:
        """The weight of a client that has not reported."""
        return self._weight / len(self._shares) if self._shares else 1.0

    @property
    def _parts(self) -> list[slice]:
        return [self._layout.shared, *self._layout.heads, self._layout.buffers]

    @property
    def _silent_share(self) -> Share:
        return Share(1.0, tuple(range(len(self._layout.heads))))

    def _total(self, part: slice, silent: int) -> Tensor:
        """The weighted sum over all clients, so many of which have not reported."""
        if silent == 0:
            return self._reported[part]
        given = len(self._storage.clients()) - len(self._shares)
        total = torch.add(self._reported[part], self._silent[part], alpha=self._typical)
        return total.add_(self._start[part], alpha=self._typical * (silent - given))

    def _count(self, share: Share, sign: float) -> None:
        self._weight += sign * share.weight
        for task in share.tasks:
            self._owners[task] += sign * share.weight

    def _add(self, total: Tensor, terms: Sequence[_Term]) -> Tensor | None:
        """Add terms to a sum over all clients, each slice over its owners; what their updates come to, if any."""
        if not terms:
            return None
        heads = range(len(self._layout.heads))
        if all(len(share.tasks) == len(heads) for _, share, _ in terms):
            return _add_slice(total, slice(0, self._layout.size), terms)
        owned = [terms, *([term for term in terms if task in term[1].tasks] for task in heads), terms]
        return torch.cat([_add_slice(total, part, some) for part, some in zip(self._parts, owned, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """Vectors, shares and sums."""
        return {
            "storage": self._storage.state_dict(),
            "start": self._start,
            "reported": self._reported.clone(),
            "silent": self._silent.clone(),
            "shares": [[client, weight, list(tasks)] for client, (weight, tasks) in self._shares.items()],
            "weight": self._weight,
            "owners": list(self._owners),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned, into one that is new."""
        self._storage.load_state_dict(state["storage"])
        self._start = checked_tensor(state["start"])
        self._reported, self._silent = state["reported"].clone(), state["silent"].clone()
        self._shares = {int(c): Share(float(w), tuple(map(int, tasks))) for c, w, tasks in state["shares"]}
        self._weight = float(state["weight"])
        self._owners = [float(weight) for weight in state["owners"]]


def _add_slice(total: Tensor, part: slice, terms: Sequence[_Term]) -> Tensor:
    """Add a slice of the terms to that of a sum; what their updates come to.

    Updates are added up in single precision first: they are small, and what is rounded differs from step to step. Bases
    go into the sum as they are: while they hardly change, what is rounded is the same in each step, and would add up.
    """
    vectors, factors = _merged([(vector.update, sign * share.weight) for vector, share, sign in terms], part)
    change = weighted_sum(vectors, factors) if vectors else total.new_zeros(part.stop - part.start, dtype=torch.float32)
    bases, shares = _merged([(vector.base, sign * share.weight) for vector, share, sign in terms], part)
    whole = [change, *bases] if vectors else bases
    for block, *pieces in zip(*(torch.split(vector, _BLOCK) for vector in (total[part], *whole)), strict=True):
        for piece, factor in zip(pieces, [1.0] * bool(vectors) + shares, strict=True):
            block.add_(piece, alpha=factor)
    return change


def _merged(terms: Sequence[tuple[Tensor | None, float]], part: slice) -> tuple[list[Tensor], list[float]]:
    """A slice of each vector among the terms, and its factors added up; a vector that cancels is left out."""
    merged: dict[int, tuple[Tensor, float]] = {}
    for vector, factor in terms:
        if vector is not None:
            merged[id(vector)] = (vector, factor + (merged[id(vector)][1] if id(vector) in merged else 0.0))
    kept = [(cut(vector, part), factor) for vector, factor in merged.values() if factor]
    return [vector for vector, _ in kept], [factor for _, factor in kept]
