"""Fully asynchronous: every arrival is a server step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmtl.protocol import Decision, GlobalModel, Update
from strategies.core.kinds import Scheduler
from strategies.schedulers.options import Concurrency, limits_nothing
from strategies.schedulers.roster import Roster


class Asynchronous(Scheduler):
    """Every arrival is a server step, and the next order is given out with the new model.

    Examples
    --------
    Client 1 answers: its update is applied alone, and it trains on.

    >>> from fedmtl.toy import toy_update
    >>> from strategies.schedulers import Asynchronous
    >>> scheduler = Asynchronous()
    >>> scheduler.begin([0, 1], now=0.0).assignments
    (Assignment(client=0, steps=None), Assignment(client=1, steps=None))
    >>> decision = scheduler.on_update(toy_update(1), now=2.0)
    >>> decision.aggregate, decision.assignments
    ((JobKey(client=1, job=0),), (Assignment(client=1, steps=None),))
    """

    provides = frozenset({"every-update", "distinct-clients"})
    no_rule = "every update is a server step by itself, so that there are no others to judge it by"

    def __init__(self, *, concurrency: Concurrency = None) -> None:
        self._roster = Roster(concurrency)

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the draws."""
        self._roster.seed = seed

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """Orders to as many clients as may be busy."""
        self._roster.free(clients)
        return Decision(assignments=self._roster.fill())

    def on_update(self, update: Update, now: float) -> Decision:
        """Aggregate the update at once, alone."""
        self._roster.free((update.client,))
        return Decision(aggregate=(update.key,), trigger="single", assignments=self._roster.fill())

    def on_idle(self, client: int, now: float) -> Decision:
        """The client, or another in its place, is next."""
        self._roster.free((client,))
        return Decision(assignments=self._roster.fill())

    def on_lost(self, client: int, now: float) -> Decision:
        """Another client takes the place of the lost one."""
        self._roster.remove(client)
        return Decision(assignments=self._roster.fill())

    def remarks(self, clients: int) -> Sequence[str]:
        """A limit that limits nothing."""
        return limits_nothing("concurrency", self._roster.limit, clients)

    def state_dict(self) -> dict[str, Any]:
        """Who is busy, who is idle, and the number of draws."""
        return self._roster.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._roster.load_state_dict(state)
