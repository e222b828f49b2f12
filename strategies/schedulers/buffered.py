"""Semi-asynchronous: a buffer of K updates makes a server step."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import NOTHING, Decision, GlobalModel, JobKey, Update
from fedmtl.restoring import number_or_none
from strategies.core.kinds import Scheduler
from strategies.schedulers.coverage import TaskCoverage
from strategies.schedulers.options import (
    BufferRule,
    BufferSize,
    Clock,
    Concurrency,
    FlushSeconds,
    MaxBuffer,
    MaxStaleness,
    Tick,
    TickOrder,
    limits_nothing,
)
from strategies.schedulers.roster import Roster
from strategies.selectors.base import Selector


class Buffered(Scheduler):
    """K updates make a server step: the first that wait, in the order of their arrival.

    With ``clock = "tick"`` everything that arrives at one instant is buffered, then comes the aggregation, then the
    next orders, so that all of these start from the same model. Updates of one instant wait as their orders were sent,
    or with ``tick_order = "client"`` by their clients' numbers, as FedQS's authors have it, whose server asks all
    clients in turn in every tick.

    With `max_buffer` the buffer is aware of tasks: it collects beyond K updates until every task is among them that has
    an owner who is there, or until there are so many, and all are aggregated. At the end of `flush_seconds` all that
    wait are aggregated, however few they are and whatever tasks they carry; what arrives at that very instant is among
    them.

    Parameters
    ----------
    selection
        Chooses who is next where `concurrency` limits how many are busy; None: at random.

    Raises
    ------
    ConfigError
        If a number is out of range, or options contradict each other.

    Notes
    -----
    The trigger is ``"full"``, or ``"uncovered"`` where `max_buffer` updates do not carry every task, or ``"deadline"``
    where `flush_seconds` ended. If every client is lost while updates wait in the buffer, nothing would ever fill it:
    these are then aggregated with the trigger ``"rest"``.

    Examples
    --------
    Of three clients that train all the time, the first two updates make a server step:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.schedulers import Buffered
    >>> scheduler = Buffered(buffer_size=2)
    >>> orders = scheduler.begin(range(3), now=0.0).assignments
    >>> for client, now in [(2, 1.0), (0, 1.5)]:
    ...     decision = scheduler.on_update(toy_update(client), now)
    ...     decision.trigger, [key.client for key in decision.aggregate]
    ('', [])
    ('full', [2, 0])
    """

    def __init__(
        self,
        selection: Selector | None = None,
        *,
        buffer_size: BufferSize = 10,
        concurrency: Concurrency = None,
        max_staleness: MaxStaleness = None,
        buffer: BufferRule = "drain",
        clock: Clock = "event",
        tick: Tick = 1.0,
        max_buffer: MaxBuffer = None,
        flush_seconds: FlushSeconds = None,
        tick_order: TickOrder = "sent",
    ) -> None:
        _check_sizes(buffer_size, max_buffer, flush_seconds)
        if selection is not None and concurrency is None:
            raise ConfigError(
                f"{type(selection).__name__} chooses among clients: set concurrency, or selection = 'random'"
            )
        if buffer == "one_per_tick" and clock != "tick":
            raise ConfigError("buffer = 'one_per_tick' needs ticks: set clock = 'tick', or buffer = 'drain'")
        if tick_order == "client" and clock != "tick":
            raise ConfigError("tick_order = 'client' is an order within a tick: set clock = 'tick'")
        self.selection = selection
        self._size = buffer_size
        self._limit = buffer_size if max_buffer is None else max_buffer
        self._coverage = None if max_buffer is None else TaskCoverage(0)
        self._one_per_tick = buffer == "one_per_tick"
        self._ticks = clock == "tick"
        self._tick = tick
        self._max_staleness = max_staleness
        if max_staleness is None:
            self.provides = frozenset({"every-update"})
        self._roster = Roster(concurrency, selection)
        self._buffer: list[JobKey] = []
        self._patience = flush_seconds
        self._since: list[float] = []  # when each of the buffer arrived; kept only where patience has an end
        self.tick_order = tick_order
        self._instant: float | None = None  # of the last arrival, and where the updates of that instant begin
        self._instant_begins = 0
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
        """Orders to as many clients as may be busy."""
        self._roster.free(clients)
        return Decision(assignments=self._roster.fill())

    def most_clients(self, clients: int | None) -> int:
        """No more than updates; a client may have several of these."""
        return self._limit if clients is None else min(self._limit, clients)

    def on_update(self, update: Update, now: float) -> Decision:
        """Put the update into the buffer, or turn it down as too stale."""
        if self.selection is not None:
            self.selection.heard(update)
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
        """Where in the buffer an update belongs: at its end, or among those of its instant by its client's number."""
        held = len(self._buffer)
        if self.tick_order == "sent":
            return held
        if self._instant != now:
            self._instant, self._instant_begins = now, held
        return bisect.bisect(self._buffer, key, lo=min(self._instant_begins, held))

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

    def updates_per_version(self, clients: int) -> int:
        """K, unless the end of a wait takes fewer."""
        return self._size if self._patience is None else 1

    def remarks(self, clients: int) -> Sequence[str]:
        """A limit that limits nothing."""
        return limits_nothing("concurrency", self._roster.limit, clients)

    def state_dict(self) -> dict[str, Any]:
        """The roster, the buffer, the version and the ticks."""
        return {
            "roster": self._roster.state_dict(),
            "buffer": [list(key) for key in self._buffer],
            "since": list(self._since),
            "version": self._version,
            "due": self._due,
            "stepped_at": self._stepped_at,
            "instant": self._instant,
            "instant_begins": self._instant_begins,
            "coverage": None if self._coverage is None else self._coverage.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._roster.load_state_dict(state["roster"])
        self._buffer = [JobKey(int(client), int(job)) for client, job in state["buffer"]]
        self._since = [float(time) for time in state["since"]]
        self._version = int(state["version"])
        self._due = number_or_none(state["due"])
        self._stepped_at = number_or_none(state["stepped_at"])
        self._instant, self._instant_begins = number_or_none(state["instant"]), int(state["instant_begins"])
        if self._coverage is not None:
            self._coverage.load_state_dict(state["coverage"])


def _check_sizes(buffer_size: int, max_buffer: int | None, flush_seconds: float | None) -> None:
    if buffer_size < 1:
        raise ConfigError(f"buffer_size = {buffer_size}: a buffer must hold at least 1 update")
    if max_buffer is not None and max_buffer < buffer_size:
        raise ConfigError(f"max_buffer = {max_buffer} is below buffer_size = {buffer_size}")
    if flush_seconds is not None and not flush_seconds > 0.0:
        raise ConfigError(f"flush_seconds = {flush_seconds}: the limit must be positive")
