"""Synchronous rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmtl.protocol import NOTHING, Decision, GlobalModel, JobKey, Update
from strategies.parts import Scheduler
from strategies.schedulers.roster import Roster


class Synchronous(Scheduler):
    """Rounds: some clients are given orders, and when each has answered or is lost, the answers are aggregated.

    Updates are aggregated in the order in which their clients were chosen, and clients are chosen whatever the order
    of the arrivals was: a run gives the same model at any speeds. A round that nobody answers takes no server step;
    the next one begins at once, or when a client joins.

    Parameters
    ----------
    clients_per_round
        How many are drawn at random for a round; None: all that are there.
    """

    provides = frozenset({"every-update", "fresh-updates", "distinct-clients"})

    def __init__(self, clients_per_round: int | None = None) -> None:
        self._roster = Roster(clients_per_round)
        self._round: dict[int, None] = {}  # an ordered set
        self._outstanding: set[int] = set()
        self._gone: set[int] = set()  # members of the round that were lost, whether they had answered or not
        self._answers: dict[int, int] = {}  # client -> job

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the draws."""
        self._roster.seed = seed

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """The first round."""
        self._roster.free(clients)
        return self._next_round()

    def on_update(self, update: Update, now: float) -> Decision:
        """Keep it until the round is complete."""
        self._answers[update.client] = update.job
        return self._settled(update.client)

    def on_idle(self, client: int, now: float) -> Decision:
        """A member of the round has nothing to deliver, or a client joined: it waits for the next round."""
        if client in self._gone or client not in self._round:
            self._gone.discard(client)
            self._roster.free((client,))
        return self._settled(client)

    def on_lost(self, client: int, now: float) -> Decision:
        """The round goes on without it; what it delivered before counts."""
        self._roster.remove(client)
        if client in self._round:
            self._gone.add(client)
        return self._settled(client)

    def _settled(self, client: int) -> Decision:
        self._outstanding.discard(client)
        return NOTHING if self._outstanding else self._next_round()

    def _next_round(self) -> Decision:
        aggregate = tuple(JobKey(client, self._answers[client]) for client in self._round if client in self._answers)
        self._roster.free(client for client in self._round if client not in self._gone)
        assignments = self._roster.fill()
        self._round = dict.fromkeys(assignment.client for assignment in assignments)
        self._outstanding = set(self._round)
        self._gone = set()
        self._answers = {}
        return Decision(aggregate=aggregate, trigger="all" if aggregate else "", assignments=assignments)

    def state_dict(self) -> dict[str, Any]:
        """The roster and the round."""
        return {
            "roster": self._roster.state_dict(),
            "round": list(self._round),
            "outstanding": sorted(self._outstanding),
            "gone": sorted(self._gone),
            "answers": list(self._answers.items()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._roster.load_state_dict(state["roster"])
        self._round = dict.fromkeys(map(int, state["round"]))
        self._outstanding = set(map(int, state["outstanding"]))
        self._gone = set(map(int, state["gone"]))
        self._answers = {int(client): int(job) for client, job in state["answers"]}
