"""What the server knows of its clients, whatever the strategy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import Update


@dataclass(slots=True)
class Reports:
    """The latest credible value of one term from each client.

    Attributes
    ----------
    largest
        Credible are 0 to this.
    latest
        By client.
    left_out
        How many values were not finite or out of range, and were left out: a sum that is kept up to date would never be
        rid of what a huge one did to it. An update with such a value is rejected when it arrives; only parts that are
        shown updates before (:mod:`strategies.core.outcomes`) come upon them.
    sum
        Of the latest values, kept up to date.

    Examples
    --------
    A newer value replaces the older one of its client; what is beyond all measure is left out.

    >>> from strategies.core.ledger import Reports
    >>> reports = Reports(largest=10.0)
    >>> for client, value in [(0, 2.0), (1, 4.0), (0, 6.0), (1, 1e30)]:
    ...     reports.add(client, value)
    >>> reports.latest, reports.mean, reports.left_out
    ({0: 6.0, 1: 4.0}, 5.0, 1)
    """

    largest: float
    latest: dict[int, float] = field(default_factory=dict)
    left_out: int = 0
    sum: float = 0.0

    def add(self, client: int, value: float) -> None:
        """Take a client's newest value, if it is credible."""
        if not 0.0 <= value <= self.largest:
            self.left_out += 1
            return
        self.sum += value - self.latest.get(client, 0.0)
        self.latest[client] = value

    @property
    def mean(self) -> float | None:
        """Mean over the clients that reported; None before the first."""
        return self.sum / len(self.latest) if self.latest else None


class Ledger:
    """Counts of aggregated updates, and each client's latest report of what is followed; each operation costs O(1).

    Parameters
    ----------
    follows
        The terms of updates to follow, each with its largest credible value: the parts' `follows`.

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

    Raises
    ------
    ConfigError
        If two parts differ in what they take for credible.

    Examples
    --------
    Three updates arrived, and two were applied; a client was never heard of:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> ledger = Ledger({"similarity": 1.0})
    >>> ledger.met(range(3))
    >>> updates = [toy_update(0, terms={"similarity": 0.5}), toy_update(1), toy_update(1, job=1, examples=30)]
    >>> for update in updates:
    ...     ledger.received(update)
    >>> ledger.applied(updates[:2])
    >>> ledger.aggregated, ledger.frequency(0), ledger.frequency(2)
    ({0: 1, 1: 1}, 0.5, 0.0)
    >>> ledger.mean_examples, ledger.mean("similarity")
    (20.0, 0.5)
    """

    def __init__(self, *follows: Mapping[str, float]) -> None:
        self.known: set[int] = set()
        self.aggregated: dict[int, int] = {}
        self.total = 0
        self.examples: dict[int, int] = {}
        self._examples_sum = 0
        self._reports: dict[str, Reports] = {}
        for term, largest in (entry for terms in follows for entry in terms.items()):
            if self._reports.setdefault(term, Reports(largest)).largest != largest:
                known = self._reports[term].largest
                raise ConfigError(f"two parts follow the term {term!r}, one up to {known:g}, one up to {largest:g}")

    @property
    def followed(self) -> Collection[str]:
        """The terms that are followed."""
        return self._reports.keys()

    def reports(self, term: str) -> Reports:
        """What clients reported of a term; nothing of one that is not followed."""
        return self._reports.get(term) or Reports(0.0)

    def mean(self, term: str) -> float | None:
        """Mean of the clients' latest credible values of a term; None before the first."""
        return self.reports(term).mean

    def met(self, clients: Iterable[int]) -> None:
        """Note clients that are there."""
        self.known.update(clients)

    def received(self, update: Update) -> None:
        """Note what an update reports, when it arrives."""
        self._examples_sum += update.examples - self.examples.get(update.client, 0)
        self.examples[update.client] = update.examples
        for term, reports in self._reports.items():
            if (value := update.terms.get(term)) is not None:
                reports.add(update.client, value)

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

    def state_dict(self) -> dict[str, Any]:
        """Everything, as JSON-compatible values."""
        return {
            "known": sorted(self.known),
            "aggregated": list(self.aggregated.items()),
            "examples": list(self.examples.items()),
            "reports": {
                term: {"latest": list(reports.latest.items()), "left_out": reports.left_out, "sum": reports.sum}
                for term, reports in self._reports.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.known = {int(c) for c in state["known"]}
        self.aggregated = {int(c): int(n) for c, n in state["aggregated"]}
        self.total = sum(self.aggregated.values())
        self.examples = {int(c): int(n) for c, n in state["examples"]}
        self._examples_sum = sum(self.examples.values())
        for term, reports in self._reports.items():
            saved = state["reports"][term]
            reports.latest = {int(c): float(value) for c, value in saved["latest"]}
            reports.left_out, reports.sum = int(saved["left_out"]), float(saved["sum"])
