"""The one loop: events in, decisions out. It serves simulation and deployment alike; only the fleet differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedmtl.errors import DivergedError, UserError
from fedmtl.protocol import Aggregation, Arrival, Deadline, Event, Rejection
from fedmtl.restoring import refuse_difference, restore_whole, within
from strategies.core.fleet import Fleet, Interrupted
from strategies.core.kinds import Reaction
from strategies.core.outcomes import outcome_listener
from strategies.core.strategy import Strategy

_IDLE_WAKES = 1_000_000
"""Deadlines in a row with nothing to do, after which no other are waited for."""


class Observer:
    """Something that watches a run and changes nothing: a recorder, an evaluator, a progress display.

    Examples
    --------
    Rounds last as long as the slower client takes:

    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.fleet import ToyFleet
    >>> from strategies.core.loop import Loop, Observer
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.schedulers import Synchronous
    >>> from strategies.weightings import Uniform
    >>> class Report(Observer):
    ...     def on_aggregation(self, loop, aggregation):
    ...         print(f"version {aggregation.version} after {aggregation.time} s: {len(aggregation.updates)} updates")
    ...     def on_end(self, loop):
    ...         print(f"ended: {loop.ended}")
    >>> strategy = Strategy(Synchronous(), GradientAggregator(Uniform()))
    >>> strategy.initialise(toy_model([8.0]))
    >>> fleet = ToyFleet({0: 1.0, 1: 2.5}, train=lambda order: -0.5 * order.base.vector)
    >>> loop = Loop(strategy, fleet, [Report()])
    >>> loop.run(lambda loop: "two versions" if loop.strategy.model.version == 2 else None)
    version 1 after 2.5 s: 2 updates
    version 2 after 5.0 s: 2 updates
    ended: two versions
    """

    def on_start(self, loop: Loop) -> None:
        """The first orders were sent, or a run was resumed."""

    def on_rejection(self, loop: Loop, rejection: Rejection) -> None:
        """An update was turned down."""

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """A server step was taken; `loop.strategy.model` is the new version."""

    def after_event(self, loop: Loop, event: Event) -> None:
        """An event was dealt with, and the orders it led to were sent: the only moment at which a run may be saved."""

    def before_end(self, loop: Loop) -> None:
        """The run is about to end, after an event was dealt with: what is saved now goes on as if it never had."""

    def on_end(self, loop: Loop) -> None:
        """The run is over; `loop.ended` says why."""


class Loop:
    """Drives a strategy over a fleet.

    Attributes
    ----------
    arrivals, rejected
        Updates that arrived so far, and how many of them were turned down.
    ended
        Why the run ended; empty while it goes on, and after an interruption.
    diverged
        The server step that could not be taken, and ended the run; None so far.
    begun
        Whether the strategy has made its first decision, in this process or before the state that was loaded.

    Examples
    --------
    A server step of four updates, of which the fast client sent three:

    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.fleet import ToyFleet
    >>> from strategies.core.loop import Loop
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.schedulers import Buffered
    >>> from strategies.weightings import Uniform
    >>> strategy = Strategy(Buffered(buffer_size=4), GradientAggregator(Uniform()))
    >>> strategy.initialise(toy_model([8.0]))
    >>> loop = Loop(strategy, ToyFleet({0: 1.0, 1: 2.5}, train=lambda order: -0.5 * order.base.vector))
    >>> loop.run(lambda loop: "enough" if loop.strategy.model.version == 1 else None)
    >>> loop.ended, loop.arrivals, strategy.ledger.aggregated, strategy.model.vector
    ('enough', 4, {0: 3, 1: 1}, tensor([4.]))
    """

    def __init__(self, strategy: Strategy, fleet: Fleet, observers: Sequence[Observer] = ()) -> None:
        self.strategy = strategy
        self.fleet = fleet
        self.observers = tuple(observers)
        self.arrivals = 0
        self.rejected = 0
        self.ended = ""
        self.diverged: DivergedError | None = None
        self.begun = False
        self._interrupted = False
        self._rejected_in_a_row = 0
        self._failing: set[int] = set()  # who sent these
        strategy.face(simulated=fleet.simulated, known=fleet.claim)
        self._idle_wakes = 0
        if (listener := outcome_listener(strategy)) is not None:
            fleet.train_at_once(listener)

    def run(self, stop: Callable[[Loop], str | None]) -> None:
        """Run until `stop(loop)` returns a reason, or nothing can happen any more, or `interrupt` was called.

        At the end the scheduler may ask for a last server step (`Scheduler.finish`), which comes on top of what `stop`
        asked for. A server step that would make the model not finite is not taken, and ends the run: what came before
        is there. After an interruption the run is not over: its state can be saved, and `on_end` of the
        observers is not called.

        Raises
        ------
        UserError
            If every client fails again and again, or the scheduler is woken without end and does nothing, so that the
            run would never end.
        """
        try:
            self._begin()
            for observer in self.observers:
                observer.on_start(self)
            if reason := self.advance(stop):
                self.end(reason)
        except Interrupted:
            return
        except DivergedError as error:
            # No last step is asked of the scheduler: the parts have seen one that was not taken.
            self.diverged = error
            self._close(str(error))

    def advance(self, stop: Callable[[Loop], str | None] = lambda loop: None) -> str:
        """Deal with events until `stop(loop)` returns a reason, none is to come, or `interrupt` was called.

        For callers that go on later, with more events: the run is not over.

        Returns
        -------
        str
            Why; empty after an interruption.
        """
        self._begin()
        while not (reason := stop(self)):
            if self._interrupted:
                return ""
            event = self.fleet.next_event(self.strategy.next_deadline())
            if event is None:
                return "no client will ever answer again"
            self.arrivals += isinstance(event, Arrival)
            rejected, idle = self.rejected, isinstance(event, Deadline)
            for reaction in self.strategy.reactions(event):
                idle = idle and not (reaction.decision.aggregate or reaction.decision.assignments)
                self._act(reaction)
            self._refuse_endless_waking(idle=idle)
            if isinstance(event, Arrival) and rejected == self.rejected:
                self._progressed()
            for observer in self.observers:
                observer.after_event(self, event)
        return reason

    def _refuse_endless_waking(self, *, idle: bool) -> None:
        """Give up when the scheduler is woken again and again and has nothing to do."""
        self._idle_wakes = self._idle_wakes + 1 if idle else 0
        if self._idle_wakes >= _IDLE_WAKES:
            raise UserError(
                f"the server was woken {self._idle_wakes:,} times in a row, now at {self.fleet.now():.17g} s, and had "
                f"nothing to do: a period of strategy {self.strategy.name!r}, such as a tick or the length of a round, "
                "is far shorter than what clients take; make it longer"
            )

    def end(self, reason: str) -> None:
        """Call the observers' `before_end`, take the scheduler's last server step, if any, and call their `on_end`."""
        for observer in self.observers:
            observer.before_end(self)
        self.ended = reason
        self._act(self.strategy.finish(self.fleet.now()))
        self._close(reason)

    def _close(self, reason: str) -> None:
        self.ended = reason
        for observer in self.observers:
            observer.on_end(self)

    def _begin(self) -> None:
        if not self.begun:
            first = self.strategy.begin(self.fleet.clients(), self.fleet.now())
            self.begun = True
            self._act(first)

    def interrupt(self) -> None:
        """Make `run` return before the next event."""
        self._interrupted = True
        self.fleet.interrupt()

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called before the run was over."""
        return self._interrupted and not self.ended

    def _act(self, reaction: Reaction) -> None:
        decision, now = reaction.decision, self.fleet.now()
        turned_down = {key for key, _ in decision.rejected}
        for rejection in reaction.rejections:
            self._on_rejection(rejection, useless=rejection.update.key not in turned_down)
        if decision.aggregate:
            self._progressed()
            aggregation = self.strategy.aggregate(decision, now)
            for observer in self.observers:
                observer.on_aggregation(self, aggregation)
        if decision.assignments:
            self.fleet.send(self.strategy.orders(decision.assignments))

    def _progressed(self) -> None:
        self._rejected_in_a_row = 0
        self._failing.clear()

    def _on_rejection(self, rejection: Rejection, *, useless: bool) -> None:
        """Tell of it, and give up when all updates are useless; what a scheduler has no room for says nothing.

        One client that fails at once, again and again, cannot end a run while another is at work that has not failed.
        """
        self.rejected += 1
        if useless:
            self._rejected_in_a_row += 1
            self._failing.add(rejection.update.client)
        for observer in self.observers:
            observer.on_rejection(self, rejection)
        if self._rejected_in_a_row >= 1000 and self._failing.issuperset(self.strategy.busy):
            raise UserError(
                f"{self._rejected_in_a_row} updates were of no use since the last that was taken "
                f"(most recently client {rejection.update.client}: {rejection.reason}); "
                "lower training.learning_rate or check the data"
            )

    def state_dict(self) -> dict[str, Any]:
        """Strategy, fleet and counters."""
        return {"strategy": self.strategy.state_dict(), "fleet": self.fleet.state_dict(), **self._counts()}

    def _counts(self) -> dict[str, Any]:
        return {
            "arrivals": self.arrivals,
            "rejected": self.rejected,
            "rejected_in_a_row": self._rejected_in_a_row,
            "failing": sorted(self._failing),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; `run` then goes on instead of beginning.

        Raises
        ------
        KeyError, TypeError, ValueError
            If an entry is absent, unknown, or of another type or shape than what is restored has; the message names it.
        """
        things: dict[str, Strategy | Fleet] = {"strategy": self.strategy, "fleet": self.fleet}
        self._failing = set(state["failing"])
        refuse_difference({name: entry for name, entry in state.items() if name not in things}, self._counts())
        for name, thing in things.items():
            saved = state[name]
            with within(name):
                restore_whole(thing, saved)
        self.arrivals = int(state["arrivals"])
        self.rejected = int(state["rejected"])
        self._rejected_in_a_row = int(state["rejected_in_a_row"])
        self.begun = True
