"""What the server knows of its clients, whatever the strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedmtl.protocol import Update
from fedmtl.similarity import LARGEST


class Ledger:
    """Counts of aggregated updates and the latest similarity of each client; every operation costs O(1).

    Attributes
    ----------
    known
        Every client that was ever there.
    aggregated
        n(i), the number of client i's updates that went into the model; clients without any are absent.
    total
        Sum of n(i) over all clients.
    examples
        The training examples that each client reported last.
    similarity
        The latest similarity that each client reported and that a measure of :mod:`fedmtl.similarity` can have.
    non_finite
        How many reported similarities were not finite, or out of every measure's range, and were left out: a sum that
        is kept up to date would never be rid of what a huge one did to it.
    """

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.aggregated: dict[int, int] = {}
        self.total = 0
        self.examples: dict[int, int] = {}
        self.similarity: dict[int, float] = {}
        self.non_finite = 0
        self._similarity_sum = 0.0
        self._examples_sum = 0

    def met(self, clients: Iterable[int]) -> None:
        """Note clients that are there."""
        self.known.update(clients)

    def received(self, update: Update) -> None:
        """Note what an update reports, when it arrives."""
        self._examples_sum += update.examples - self.examples.get(update.client, 0)
        self.examples[update.client] = update.examples
        value = update.similarity
        if value is None:
            return
        if not 0.0 <= value <= LARGEST:
            self.non_finite += 1
            return
        self._similarity_sum += value - self.similarity.get(update.client, 0.0)
        self.similarity[update.client] = value

    def applied(self, updates: Sequence[Update]) -> None:
        """Count updates that are being aggregated."""
        for update in updates:
            self.aggregated[update.client] = self.aggregated.get(update.client, 0) + 1
        self.total += len(updates)

    def frequency(self, client: int) -> float:
        """f_i, the client's share of all aggregated updates; 0 before the first."""
        return self.aggregated.get(client, 0) / self.total if self.total else 0.0

    @property
    def mean_frequency(self) -> float | None:
        """Mean of f_i over the clients with n(i) > 0, which is one over their number; None before the first."""
        return 1.0 / len(self.aggregated) if self.aggregated else None

    @property
    def mean_examples(self) -> float:
        """Mean of the examples over the clients that reported; 0 before the first."""
        return self._examples_sum / len(self.examples) if self.examples else 0.0

    @property
    def mean_similarity(self) -> float | None:
        """Mean of the latest similarities over the clients that reported one; None before the first."""
        return self._similarity_sum / len(self.similarity) if self.similarity else None

    def state_dict(self) -> dict[str, Any]:
        """Everything, as JSON-compatible values."""
        return {
            "known": sorted(self.known),
            "aggregated": list(self.aggregated.items()),
            "examples": list(self.examples.items()),
            "similarity": list(self.similarity.items()),
            "similarity_sum": self._similarity_sum,
            "non_finite": self.non_finite,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.known = {int(c) for c in state["known"]}
        self.aggregated = {int(c): int(n) for c, n in state["aggregated"]}
        self.total = sum(self.aggregated.values())
        self.examples = {int(c): int(n) for c, n in state["examples"]}
        self._examples_sum = sum(self.examples.values())
        self.similarity = {int(c): float(s) for c, s in state["similarity"]}
        self._similarity_sum = float(state["similarity_sum"])
        self.non_finite = int(state["non_finite"])
