"""Semi-asynchronous: a buffer of K updates makes a server step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fedmtl.errors import ConfigError
from fedmtl.protocol import NOTHING, Decision, GlobalModel, JobKey, Update
from strategies.core.kinds import Scheduler
from strategies.schedulers.coverage import TaskCoverage
from strategies.schedulers.roster import Roster
from strategies.selectors.base import Selector


class Buffered(Scheduler):
    """Collects updates in the order of their arrival and aggregates the first K of them when there are that many.

    Parameters
    ----------
    size
        K, the updates of an aggregation.
    concurrency
        How many clients are busy at once, the next being drawn at random (FedBuff); None: all (the SAFL setting of
        FedQS).
    buffer
        ``"drain"`` aggregates as often as there are K updates, ``"one_per_tick"`` at most once per tick.
    clock
        ``"event"`` reacts to each arrival at once. ``"tick"`` first buffers everything that arrives at one instant,
        then aggregates, then gives out the next orders, so that all of these start from the same model.
    tick
        Seconds after which ``"one_per_tick"`` returns to a buffer that still holds K updates.
    max_staleness
        Updates that are more versions behind when they arrive are rejected; None: none are.
    selector
        Chooses who is next where `concurrency` limits how many are busy; None: at random.
    max_size
        Makes the buffer aware of tasks: it collects beyond K updates until every task is among them that has an owner
        who is there, or until there are `max_size`, and all are aggregated. None: tasks do not matter.
    patience
        Seconds that the first of the waiting updates waits at most: then all are aggregated, however few they are and
        whatever tasks they carry; what arrives at that very instant is among them. None: no limit.

    Raises
    ------
    ConfigError
        If K is below 1, `max_size` below K, the patience not positive, or ``"one_per_tick"`` is asked for without
        ticks.

    Notes
    -----
    The trigger is ``"full"``, or ``"uncovered"`` where `max_size` updates do not carry every task, or ``"deadline"``
    where patience ended. If every client is lost while updates wait in the buffer, nothing would ever fill it: these
    are then aggregated with the trigger ``"rest"``.
    """

    def __init__(
        self,
        size: int = 10,
        *,
        concurrency: int | None = None,
        buffer: Literal["drain", "one_per_tick"] = "drain",
        clock: Literal["event", "tick"] = "event",
        tick: float = 1.0,
        max_staleness: int | None = None,
        selector: Selector | None = None,
        max_size: int | None = None,
        patience: float | None = None,
    ) -> None:
        if size < 1:
            raise ConfigError(f"a buffer of {size} updates: it must hold at least 1")
        if buffer == "one_per_tick" and clock != "tick":
            raise ConfigError("buffer = 'one_per_tick' needs ticks: set clock = 'tick', or buffer = 'drain'")
        if selector is not None and concurrency is None:
            raise ConfigError("a choice of clients needs a number of clients that are busy at once: set concurrency")
        self.selector = selector
        if max_size is not None and max_size < size:
            raise ConfigError(f"at most {max_size} updates in a buffer of {size}: the most is at least the size")
        if patience is not None and not patience > 0.0:
            raise ConfigError(f"updates that wait {patience} seconds at most: the limit must be positive")
        self._size = size
        self._limit = size if max_size is None else max_size
        self._coverage = None if max_size is None else TaskCoverage(0)
        self._one_per_tick = buffer == "one_per_tick"
        self._ticks = clock == "tick"
        self._tick = tick
        self._max_staleness = max_staleness
        if max_staleness is None:
            self.provides = frozenset({"every-update"})
        self._roster = Roster(concurrency, selector)
        self._buffer: list[JobKey] = []
        self._patience = patience
        self._since: list[float] = []  # when each of the buffer arrived; kept only where patience has an end
        self._version = 0
        self._due: float | None = None
        self._stepped_at: float | None = None

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the first version and the seed of the draws."""
        self._version = model.version
        self._roster.seed = seed
        if self._coverage is not None:
            self._coverage = TaskCoverage(len(model.layout.heads))

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """The first orders."""
        self._roster.free(clients)
        return Decision(assignments=self._roster.fill())

    def on_update(self, update: Update, now: float) -> Decision:
        """Put it into the buffer."""
        if self.selector is not None:
            self.selector.heard(update)
        self._roster.free((update.client,))
        staleness = self._version - update.base_version
        if self._max_staleness is not None and staleness > self._max_staleness:
            return self._react(
                now, ((update.key, f"{staleness} versions behind, at most {self._max_staleness} allowed"),)
            )
        place = self._place(update.key, now)
        self._buffer.insert(place, update.key)
        if self._patience is not None:
            self._since.append(now)
        if self._coverage is not None:
            self._coverage.add(update.client, update.tasks, place)
        return self._react(now)

    def _place(self, key: JobKey, now: float) -> int:
        """Where in the buffer an update belongs; those that arrive at one instant may change places."""
        return len(self._buffer)

    def on_idle(self, client: int, now: float) -> Decision:
        """The client, or another in its place, is next."""
        self._roster.free((client,))
        if self._coverage is not None:
            self._coverage.enter(client)
        return self._react(now)

    def on_lost(self, client: int, now: float) -> Decision:
        """Another takes its place; what it delivered before stays in the buffer."""
        self._roster.remove(client)
        if self._coverage is not None:
            self._coverage.leave(client)
        return self._react(now)

    def next_deadline(self) -> float | None:
        """The instant at which something arrived, or the next tick of a backlog; else the end of patience."""
        return self._end_of_patience if self._due is None else self._due

    def on_deadline(self, now: float) -> Decision:
        """Everything of this instant has arrived."""
        return self._advance(now, all_here=True)

    @property
    def _end_of_patience(self) -> float | None:
        return self._since[0] + self._patience if self._patience is not None and self._since else None

    def _overdue(self, now: float) -> bool:
        end = self._end_of_patience
        return end is not None and now >= end

    def _react(self, now: float, rejected: tuple[tuple[JobKey, str], ...] = ()) -> Decision:
        if not self._ticks:
            return self._advance(now, rejected)
        self._due = now
        return Decision(rejected=rejected) if rejected else NOTHING

    def _advance(
        self, now: float, rejected: tuple[tuple[JobKey, str], ...] = (), *, all_here: bool = False
    ) -> Decision:
        """One aggregation, if one is due. Only after the last of an instant are the next orders given."""
        aggregate, trigger = self._take(now, overdue=all_here and self._overdue(now))
        self._due = None
        if self._ripe or self._overdue(now):
            if not self._one_per_tick:
                self._due = now
                return Decision(aggregate, trigger, rejected=rejected)
            self._due = now + self._tick
        return Decision(aggregate, trigger, rejected=rejected, assignments=self._roster.fill())

    @property
    def _ripe(self) -> str:
        """Why the buffer is to be aggregated; empty if it is not."""
        held = len(self._buffer)
        if held >= self._size and (self._coverage is None or self._coverage.complete(self._limit)):
            return "full"
        if held >= self._limit:
            return "uncovered"
        return "rest" if held and self._roster.empty else ""

    def _take(self, now: float, *, overdue: bool) -> tuple[tuple[JobKey, ...], str]:
        trigger = self._ripe or ("deadline" if overdue else "")
        if not trigger or (self._one_per_tick and self._stepped_at == now):
            return (), ""
        taken = self._draw()
        if self._coverage is not None:
            self._coverage.take(len(taken))
        self._version += 1
        self._stepped_at = now
        return taken, trigger

    def _draw(self) -> tuple[JobKey, ...]:
        """Take the updates of an aggregation out of the buffer: the first ones."""
        taken = tuple(self._buffer[: self._limit])
        del self._buffer[: self._limit]
        del self._since[: self._limit]
        return taken

    def state_dict(self) -> dict[str, Any]:
        """The roster, the buffer, the version and the ticks."""
        return {
            "roster": self._roster.state_dict(),
            "buffer": [list(key) for key in self._buffer],
            "since": list(self._since),
            "version": self._version,
            "due": self._due,
            "stepped_at": self._stepped_at,
            "coverage": None if self._coverage is None else self._coverage.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._roster.load_state_dict(state["roster"])
        self._buffer = [JobKey(int(client), int(job)) for client, job in state["buffer"]]
        self._since = [float(time) for time in state.get("since", ())]  # older states have none
        self._version = int(state["version"])
        self._due = state["due"]
        self._stepped_at = state["stepped_at"]
        if self._coverage is not None:
            self._coverage.load_state_dict(state["coverage"])
