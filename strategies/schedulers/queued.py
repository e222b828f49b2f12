"""FedQueue's scheduler: rounds of a fixed length on machines where jobs first wait in a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import NOTHING, Assignment, Decision, JobKey, Update
from fedmtl.restoring import number_or_none
from strategies.core.kinds import Scheduler
from strategies.schedulers.options import (
    FirstJob,
    LeastSteps,
    MostSteps,
    RoundSeconds,
    Safety,
    Smoothing,
    Timer,
    Tolerance,
    many_steps,
)
from strategies.schedulers.speeds import NEEDS, Affine


class Queued(Scheduler):
    """Steps are fitted to rounds of a fixed length beside each client's expected wait (FedQueue).

    A job's duration is taken as wait plus steps times the client's seconds per step; an affine fit
    (:class:`strategies.schedulers.speeds.Affine`) gives the latter, what is left is the wait, and its exponential mean
    is the expected wait q. A client's next job has

        steps = (round_seconds - q - safety) / seconds per step,  within [min_steps, max_steps]

    An update is admitted to the round that it arrives in if its wait was at most q (of before) plus
    ``tolerance round_seconds``; otherwise it goes into the next one, marked late. A round ends when nobody is awaited
    any more, or after ``timer round_seconds``; who is free then gets an order, and who is busy trains on. If a round
    has admitted nothing, and nothing was left over for it, it takes the late ones; if there are none either, it takes
    no server step.

    Raises
    ------
    ConfigError
        If the bounds of the steps cross.

    Examples
    --------
    Two clients took 4 s and 10 s for 20 steps. Their next jobs take a round of 10 s each:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.schedulers import Queued
    >>> scheduler = Queued(round_seconds=10.0, first_steps=20)
    >>> orders = scheduler.begin(range(2), now=0.0).assignments
    >>> for client, seconds in [(0, 4.0), (1, 10.0)]:
    ...     decision = scheduler.on_update(toy_update(client, steps=20, arrived_at=seconds), now=seconds)
    >>> decision.trigger, decision.assignments
    ('all', (Assignment(client=0, steps=50), Assignment(client=1, steps=20)))
    """

    provides = frozenset({"every-update", "assigned-steps"})
    needs = NEEDS

    def __init__(
        self,
        *,
        round_seconds: RoundSeconds = 10.0,
        safety: Safety = 0.0,
        smoothing: Smoothing = 0.5,
        tolerance: Tolerance = 0.2,
        timer: Timer = 1.15,
        first_steps: FirstJob = 20,
        min_steps: LeastSteps = 1,
        max_steps: MostSteps = 200,
    ) -> None:
        if not 1 <= min_steps <= max_steps:
            raise ConfigError(f"min_steps = {min_steps} and max_steps = {max_steps}: 1 <= min_steps <= max_steps")
        self._seconds, self._safety, self._smoothing = round_seconds, safety, smoothing
        self._tolerance, self._timer = tolerance * round_seconds, timer * round_seconds
        self._first_steps, self._min_steps, self._max_steps = first_steps, min_steps, max_steps
        self._speeds = Affine()
        self._waits: dict[int, float] = {}  # q of each client
        self._steps: dict[int, int] = {}  # of each client's last order
        self._fewest = first_steps
        self._free: dict[int, None] = {}  # an ordered set
        self._busy: set[int] = set()
        self._admitted: list[JobKey] = []
        self._late: list[JobKey] = []  # of the round at hand
        self._carried: list[JobKey] = []  # late in the last round
        self._due: float | None = None

    def rate_factor(self, client: int) -> float:
        """What the client's learning rate is multiplied with: the fewest steps of any client over its own."""
        return self._fewest / self._steps[client]

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """Orders for the first round, to all clients."""
        self._free = dict.fromkeys(clients)
        return Decision(assignments=self._distribute(now))

    def on_update(self, update: Update, now: float) -> Decision:
        """Admit it to this round or to the next."""
        client = update.client
        self._busy.discard(client)
        self._free[client] = None
        expected = self._waits.get(client, 0.0)
        self._speeds.observe(client, update.duration, update.steps)
        wait = max(0.0, update.duration - self._speeds.cost(client)[1] * update.steps)
        self._waits[client] = expected + self._smoothing * (wait - expected)
        (self._admitted if wait <= expected + self._tolerance else self._late).append(update.key)
        return self._advance(now)

    def on_idle(self, client: int, now: float) -> Decision:
        """It has an order when the next round begins."""
        self._busy.discard(client)
        self._free[client] = None
        return self._advance(now)

    def on_lost(self, client: int, now: float) -> Decision:
        """The round goes on without it; what it delivered counts."""
        self._busy.discard(client)
        self._free.pop(client, None)
        self._steps.pop(client, None)
        return self._advance(now)

    def next_deadline(self) -> float | None:
        """The round's end, if anybody is awaited."""
        return self._due if self._busy else None

    def on_deadline(self, now: float) -> Decision:
        """The round is over."""
        return self._end_round(now, "deadline")

    def _advance(self, now: float) -> Decision:
        return NOTHING if self._busy else self._end_round(now, "all")

    def _end_round(self, now: float, trigger: str) -> Decision:
        if not (self._admitted or self._carried) or not (self._busy or self._free):
            # Nothing else for this round, or nobody left to make another: the late ones go in now.
            self._carried, self._late = self._carried + self._late, []
        late = frozenset(self._carried)
        aggregate = (*self._admitted, *self._carried)
        self._admitted, self._carried, self._late = [], self._late, []
        return Decision(aggregate, trigger if aggregate else "", late, assignments=self._distribute(now))

    def _distribute(self, now: float) -> tuple[Assignment, ...]:
        """Orders for all clients that are free."""
        for client in self._free:
            self._steps[client] = self._affordable(client)
        self._fewest = min(self._steps.values(), default=self._first_steps)
        assignments = tuple(Assignment(client, self._steps[client]) for client in self._free)
        self._busy.update(self._free)
        self._free = {}
        self._due = now + self._timer
        return assignments

    def _affordable(self, client: int) -> int:
        if not self._speeds.knows(client):
            return self._first_steps
        budget = self._seconds - self._waits[client] - self._safety
        steps = min(budget / self._speeds.cost(client)[1], self._max_steps)
        return max(int(steps), self._min_steps)

    def remarks(self, clients: int) -> Sequence[str]:
        """Orders of very many steps."""
        return many_steps("max_steps", self._max_steps)

    def state_dict(self) -> dict[str, Any]:
        """Estimates, clients and the round."""
        return {
            "speeds": self._speeds.state_dict(),
            "waits": list(self._waits.items()),
            "steps": list(self._steps.items()),
            "fewest": self._fewest,
            "free": list(self._free),
            "busy": sorted(self._busy),
            "admitted": [list(key) for key in self._admitted],
            "late": [list(key) for key in self._late],
            "carried": [list(key) for key in self._carried],
            "due": self._due,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._speeds.load_state_dict(state["speeds"])
        self._waits = {int(client): float(wait) for client, wait in state["waits"]}
        self._steps = {int(client): int(steps) for client, steps in state["steps"]}
        self._fewest = int(state["fewest"])
        self._free = dict.fromkeys(map(int, state["free"]))
        self._busy = set(map(int, state["busy"]))
        self._admitted, self._late, self._carried = (
            [JobKey(int(client), int(job)) for client, job in state[name]] for name in ("admitted", "late", "carried")
        )
        self._due = number_or_none(state["due"])
