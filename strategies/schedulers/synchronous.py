"""Synchronous rounds: the server waits for the clients that it asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import NOTHING, Assignment, Decision, GlobalModel, JobKey, Update
from fedmtl.restoring import number_or_none
from strategies.core.kinds import Scheduler
from strategies.schedulers.options import ClientsPerRound, Late, OverCommit, StepBudget, Timeout, limits_nothing
from strategies.schedulers.partial_work import PartialWork
from strategies.schedulers.roster import Roster
from strategies.schedulers.speeds import NEEDS
from strategies.selectors.base import Selector

_Rejected = tuple[tuple[JobKey, str], ...]


class Synchronous(Scheduler):
    """Rounds: when each client that was asked has answered or is lost, the answers are aggregated.

    Updates are aggregated in the order in which their clients were chosen, and clients are chosen whatever the order
    of the arrivals was: without over-selection and time-out a run gives the same model at any speeds. A round that
    nobody answers takes no server step; the next one begins at once, or when a client joins.

    With `over_commit` more clients are asked than answers make a round, and those who are not among the first are late.
    So are those who have not answered at the `timeout`; if nobody has, the round ends with the first answer, so that
    too short a time delays a run but does not stop it. What comes late and is kept is aggregated at the end of the
    round in which it comes, after that round's own answers; until a late client has answered, or is lost, it is not
    chosen again. With a `step_budget` slow clients are given fewer steps, once their speed is known.

    Parameters
    ----------
    selection
        Chooses the clients of a round; None: at random.

    Raises
    ------
    ConfigError
        If a number is out of range, or options contradict each other.

    Notes
    -----
    Triggers are ``"all"`` if nobody is awaited any more, ``"enough"`` if others still are, and ``"deadline"``.

    Examples
    --------
    Three clients are asked where two answers make a round, and the slowest is late:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.schedulers import Synchronous
    >>> scheduler = Synchronous(clients_per_round=2, over_commit=1.5)
    >>> orders = scheduler.begin(range(3), now=0.0).assignments
    >>> for client in (2, 0, 1):
    ...     decision = scheduler.on_update(toy_update(client), now=1.0)
    ...     decision.trigger, decision.aggregate, decision.rejected
    ('', (), ())
    ('enough', (JobKey(client=2, job=0), JobKey(client=0, job=0)), ())
    ('', (), ((JobKey(client=1, job=0), 'late: its round had ended'),))
    """

    provides = frozenset({"distinct-clients"})

    def __init__(
        self,
        selection: Selector | None = None,
        *,
        clients_per_round: ClientsPerRound = None,
        over_commit: OverCommit = 1.0,
        timeout: Timeout = None,
        late: Late = "reject",
        step_budget: StepBudget = None,
    ) -> None:
        _check(selection, clients_per_round, over_commit, timeout, step_budget)
        some_are_late = over_commit > 1.0 or timeout is not None
        if not some_are_late or late == "keep":
            self.provides |= {"every-update"}
        if not some_are_late or late == "reject":
            self.provides |= {"fresh-updates"}
        asked = None if clients_per_round is None else math.ceil(round(over_commit * clients_per_round, 9))
        self.selection = selection
        self._per_round = clients_per_round
        self._enough = clients_per_round if over_commit > 1.0 else None
        self._timeout = timeout
        self._keep = late == "keep"
        self._budget = None if step_budget is None else PartialWork(step_budget)
        if self._budget is not None:
            self.needs = NEEDS
        self._roster = Roster(asked, selection)
        self._round: dict[int, None] = {}  # an ordered set
        self._outstanding: set[int] = set()
        self._gone: set[int] = set()  # members of the round that were lost, whether they had answered or not
        self._answers: dict[int, int] = {}  # client -> job
        self._late: set[int] = set()  # members of earlier rounds that still train
        self._kept: list[JobKey] = []
        self._ends: float | None = None
        self._overtime = False

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the draws."""
        self._roster.seed = seed

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """Orders for the first round."""
        self._roster.free(clients)
        return self._next_round(now)

    def most_clients(self, clients: int | None) -> int | None:
        """Those of a round; where late updates are kept, any number may come late to it."""
        if self._per_round is None or self._keep:
            return clients
        return self._per_round if clients is None else min(self._per_round, clients)

    def on_update(self, update: Update, now: float) -> Decision:
        """Keep it until the round is complete; or it is late."""
        if self._budget is not None:
            self._budget.learn(update)
        if self.selection is not None:
            self.selection.heard(update)
        if update.client not in self._late:
            self._answers[update.client] = update.job
            return self._settled(update.client, now)
        if self._keep:
            self._kept.append(update.key)
            return self._settled(update.client, now)
        return self._settled(update.client, now, ((update.key, "late: its round had ended"),))

    def on_idle(self, client: int, now: float) -> Decision:
        """A member of the round has nothing to deliver, or a client joined: it waits for the next round."""
        if client in self._gone or client not in self._round:
            self._gone.discard(client)
            self._roster.free((client,))
        return self._settled(client, now)

    def on_lost(self, client: int, now: float) -> Decision:
        """The round goes on without it; what it delivered before counts."""
        self._roster.remove(client)
        if client in self._late:
            self._late.discard(client)
        elif client in self._round:
            self._gone.add(client)
        return self._settled(client, now)

    def next_deadline(self) -> float | None:
        """The end of the round, if it has one."""
        return self._ends

    def on_deadline(self, now: float) -> Decision:
        """The round's time is over: it ends with the answers that are there, or with the first that comes."""
        self._ends = None
        self._overtime = True
        return self._next_round(now) if self._answers or self._kept else NOTHING

    def _settled(self, client: int, now: float, rejected: _Rejected = ()) -> Decision:
        """A client is awaited no more, in the round or from an earlier one."""
        if client in self._late:
            self._late.discard(client)
            self._roster.free((client,))
        self._outstanding.discard(client)
        enough = self._enough is not None and len(self._answers) >= self._enough
        overdue = self._overtime and bool(self._answers or self._kept)
        if self._outstanding and not enough and not overdue:
            return Decision(rejected=rejected) if rejected else NOTHING
        return self._next_round(now, rejected)

    def _next_round(self, now: float, rejected: _Rejected = ()) -> Decision:
        answers = [JobKey(client, self._answers[client]) for client in self._round if client in self._answers]
        late, trigger = frozenset(self._kept), self._trigger()
        aggregate = (*answers, *self._kept)
        self._roster.free(c for c in self._round if c not in self._gone and c not in self._outstanding)
        for client in self._round:
            if client in self._outstanding:  # it is neither busy for this round nor idle
                self._roster.remove(client)
                self._late.add(client)
        chosen = [assignment.client for assignment in self._roster.fill()]
        self._round = dict.fromkeys(chosen)
        self._outstanding = set(chosen)
        self._gone = set()
        self._answers = {}
        self._kept = []
        self._overtime = False
        self._ends = None if self._timeout is None or not chosen else now + self._timeout
        assignments = tuple(Assignment(client, self._steps(client)) for client in chosen)
        return Decision(aggregate, trigger if aggregate else "", late, rejected, assignments)

    def _trigger(self) -> str:
        if not self._outstanding:
            return "all"
        return "deadline" if self._overtime else "enough"

    def _steps(self, client: int) -> int | None:
        return None if self._budget is None else self._budget.steps(client)

    def updates_per_version(self, clients: int) -> int:
        """One from each member of a round, or from those whose answers are enough; one where a round has an end."""
        members = min(clients, self._roster.limit or clients)
        return 1 if self._timeout is not None else min(members, self._enough or members)

    def remarks(self, clients: int) -> Sequence[str]:
        """Rounds that are smaller than asked for, or in which nobody is late."""
        asked, enough = self._roster.limit, self._enough
        if enough is None or enough > clients:
            return limits_nothing("clients_per_round", enough or asked, clients)
        return limits_nothing("over_commit asks more than answer: clients asked for a round", asked, clients)

    def state_dict(self) -> dict[str, Any]:
        """The roster, the round, those who are late, and the budget."""
        return {
            "roster": self._roster.state_dict(),
            "round": list(self._round),
            "outstanding": sorted(self._outstanding),
            "gone": sorted(self._gone),
            "answers": list(self._answers.items()),
            "late": sorted(self._late),
            "kept": [list(key) for key in self._kept],
            "ends": self._ends,
            "overtime": self._overtime,
            "budget": None if self._budget is None else self._budget.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._roster.load_state_dict(state["roster"])
        self._round = dict.fromkeys(map(int, state["round"]))
        self._outstanding = set(map(int, state["outstanding"]))
        self._gone = set(map(int, state["gone"]))
        self._answers = {int(client): int(job) for client, job in state["answers"]}
        self._late = set(map(int, state["late"]))
        self._kept = [JobKey(int(client), int(job)) for client, job in state["kept"]]
        self._ends, self._overtime = number_or_none(state["ends"]), bool(state["overtime"])
        if self._budget is not None:
            self._budget.load_state_dict(state["budget"])


def _check(
    selection: Selector | None,
    clients_per_round: int | None,
    over_commit: float,
    timeout: float | None,
    step_budget: float | None,
) -> None:
    if clients_per_round is None and selection is not None:
        raise ConfigError(
            f"{type(selection).__name__} chooses among clients: set clients_per_round, or selection = 'random'"
        )
    if clients_per_round is None and over_commit > 1.0:
        raise ConfigError(f"over_commit = {over_commit} asks more clients than must answer: set clients_per_round")
    if over_commit < 1.0:
        raise ConfigError(
            f"over_commit = {over_commit}: at least as many clients must be asked as answers make a round"
        )
    for name, seconds in (("timeout", timeout), ("step_budget", step_budget)):
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigError(f"{name} = {seconds} seconds: must be positive")
