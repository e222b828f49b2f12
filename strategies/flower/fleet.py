"""The fleet of real clients: Flower's SuperNodes, in wall-clock time.

Long because sending, waiting and losing nodes all work on the same messages in flight.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedmtl.protocol import Arrival, Deadline, Event, Joined, Lost, TrainOrder
from fedmtl.text import printable, shown
from fedmtl.wire import WireError, size
from strategies.core.fleet import Fleet, Interrupted
from strategies.flower.dispatched import Dispatched
from strategies.flower.mailbox import Mailbox, Reply
from strategies.flower.messages import client_of, error_of, query_message, train_message, update_of
from strategies.flower.nodes import Nodes

_log = logging.getLogger(__name__)

_SWEEP = 1.0
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class _Call:
    """A message in flight; without an order it is a query."""

    node: int
    order: TrainOrder | None
    sent_at: float
    expires_at: float
    bytes_down: int


class GridFleet(Fleet):
    """Clients on the nodes of a Flower grid.

    A node is a client: the one whose number it gives when asked (its ``partition-id``). Each has at most one message in
    flight. A node that answers with an error, or not in time, is lost, and joins again when the grid lists it: after
    1 s, then 2 s, 4 s, at most 60 s. A node that newly connects joins, too, unless another serves its client: it then
    stands by.

    Saved are the time and who had an order: a restored fleet waits for its clients anew; those that had an order are
    lost, and join again. While no server runs, no time passes.

    Parameters
    ----------
    grid
        The grid of a server app.
    expected
        How many clients to wait for at the start.
    population
        How many clients there are: nodes that give another number are left out.
    ttl
        Seconds that a client has for an order. After that it is lost, and what it sends then is dropped.
    patience
        Seconds to wait for the expected clients, and for anything to happen while no order is in flight.
    poll
        Seconds between two pulls for a reply.
    clock
        Seconds of wall-clock time.

    Examples
    --------
    Two clients are waited for, but nobody connects to this grid:

    >>> from flwr.serverapp import Grid
    >>> from strategies.flower.fleet import GridFleet
    >>> class Deserted(Grid):
    ...     run = set_run = create_message = push_messages = pull_messages = send_and_receive = None
    ...     def get_node_ids(self):
    ...         return []
    >>> fleet = GridFleet(Deserted(), expected=2, patience=0.0)
    >>> fleet.clients()
    Traceback (most recent call last):
        ...
    fedmtl.errors.UserError: 0 of 2 clients connected within 0 s (clients [], of 0 nodes): start the missing ...
    """

    def __init__(
        self,
        grid: Grid,
        *,
        expected: int = 1,
        population: int | None = None,
        ttl: float = 3600.0,
        patience: float = 600.0,
        poll: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = expected
        self._population = population
        self._ttl = ttl
        self._patience = patience
        self._clock = clock
        self._start = clock()
        self._mailbox = Mailbox(grid, self.now, poll)
        self._nodes = Nodes()
        self._calls: dict[str, _Call] = {}
        self._busy: set[int] = set()  # nodes with a message in flight
        self._events: deque[Event] = deque()
        self._dispatched = Dispatched()
        self._waiting = False
        self._time = 0.0  # of the last event served
        self._swept_at = -_SWEEP
        self._quiet_since = 0.0

    def clients(self) -> Sequence[int]:
        """The clients that are connected once enough are, and all are or no node still owes the answer who it is.

        Raises
        ------
        UserError
            If they are not within `patience` seconds.
        """
        self._wait_for_clients()
        self._dispatched.begins(self._nodes.serving)
        return sorted(self._nodes.serving)

    def _wait_for_clients(self) -> None:
        until = self.now() + self._patience
        serving = self._nodes.serving
        while self.now() < until and (
            len(serving) < self._expected or (self._calls and len(serving) != self._population)
        ):
            with self._wait():
                self._work(until)
        if len(serving) < self._expected:
            raise self._nodes.too_few(self._expected, self._patience)
        self._events.clear()  # they say who joined, as does who is serving
        self._quiet_since = self.now()

    def now(self) -> float:
        """Seconds that the run has taken, as far as a server was there."""
        return self._clock() - self._start

    def send(self, orders: Sequence[TrainOrder]) -> None:
        """Send each order to its client's node; a client whose node cannot be written to is lost."""
        for order in orders:
            self._dispatched.ordered(order.client)
        with self._wait():
            for order in orders:
                self._send(order)

    def _send(self, order: TrainOrder) -> None:
        node = self._nodes.serving.get(order.client)
        if node is None:
            self._happened(Lost(self.now(), order.client, "not connected"))
        elif node in self._busy:
            raise RuntimeError(
                f"client {order.client} was given an order while its node {node} has a message in flight"
            )
        elif not self._push(node, train_message(order, node, self._ttl), order):
            self._fail(node, "the grid refused the message")

    def next_event(self, until: float | None) -> Event | None:
        """The next event, or a `Deadline` at `until`; None if for long nothing happens and no order is out."""
        while True:
            with self._wait():
                self._gather(0.0)
            if self._events and (until is None or self._events[0].time <= until):
                event = self._events.popleft()
                if self._dispatched.is_news(event):
                    self._quiet_since = self.now()
                    self._time = event.time
                    return event
                continue
            if until is not None and self.now() >= until:
                self._time = max(self._time, until)
                return Deadline(self._time)
            if until is None and not self._calls and self.now() - self._quiet_since > self._patience:
                return None
            with self._wait():
                self._work(until)

    @contextmanager
    def _wait(self) -> Iterator[None]:
        """May be broken off anywhere: a grid that cannot reach the SuperLink keeps its caller until it can."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def interrupt(self) -> None:
        """Give up waiting; what is in flight then counts as lost.

        Raises
        ------
        Interrupted
            In the middle of it.
        """
        if self._waiting:
            raise Interrupted

    def state_dict(self) -> dict[str, Any]:
        """The time, and whom the strategy takes to be there, and to owe it an answer."""
        return {"now": self.now(), **self._dispatched.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where another fleet ended, with the clients that are connected as soon as enough are.

        Raises
        ------
        UserError
            If they are not within `patience` seconds.
        """
        self._start = self._clock() - float(state["now"])
        self._time = self.now()
        self._wait_for_clients()
        self._dispatched.load_state_dict(state)
        self._events.extend(self._dispatched.after_a_stop(self._nodes.serving, self.now()))

    def close(self) -> None:
        """Stop waiting for replies."""
        self._mailbox.close()

    def _work(self, until: float | None) -> None:
        """Look after nodes and expired orders, then wait a while for a reply."""
        if self.now() - self._swept_at >= _SWEEP:
            self._sweep()
        self._gather(0.0)  # what is here is in time, however long the server was busy
        now = self.now()
        for id, call in [entry for entry in self._calls.items() if entry[1].expires_at <= now]:
            self._forget(id)
            self._fail(call.node, f"no answer within {self._ttl:g} s")
        waits = [_SWEEP, *([] if until is None else [until - self.now()])]
        if not self._events:
            self._gather(max(0.0, min(waits)))

    def _sweep(self) -> None:
        """Ask unknown nodes who they are, and take back nodes that are there again."""
        now = self._swept_at = self.now()
        for id in self._mailbox.nodes():
            if id in self._busy or not self._nodes.is_due(id, now):
                continue
            if self._nodes.client_of(id) is not None:
                if self._nodes.take_back(id):
                    self._joined(id)
            elif not self._push(id, query_message(id, self._ttl), None):
                self._fail(id, "the grid refused the message")

    def _push(self, node: int, message: Message, order: TrainOrder | None) -> bool:
        sent_at = self.now()
        bytes_down = size(message.content)
        id = self._mailbox.send(message)
        if id is None:
            return False
        self._calls[id] = _Call(node, order, sent_at, sent_at + self._ttl + _GRACE, bytes_down)
        self._busy.add(node)
        return True

    def _gather(self, timeout: float) -> None:
        """Deal with every reply that is there, and with the first that comes within so many seconds."""
        reply = self._mailbox.receive(timeout)
        while reply is not None:
            if reply.id in self._calls:
                self._receive(reply, self._forget(reply.id))
            reply = self._mailbox.receive(0.0)

    def _forget(self, id: str) -> _Call:
        self._mailbox.drop(id)
        call = self._calls.pop(id)
        self._busy.discard(call.node)
        return call

    def _receive(self, reply: Reply, call: _Call) -> None:
        message = reply.content
        fault = f"unreadable reply: {shown(message, 300)}" if isinstance(message, Exception) else error_of(message)
        if fault is not None:
            self._fail(call.node, fault)
            return
        assert isinstance(message, Message)
        if call.order is None:
            self._introduce(call.node, message)
            return
        self._nodes.answered(call.node)
        update = update_of(message, call.order)
        update.dispatched_at, update.arrived_at = call.sent_at, reply.time
        update.bytes_down = call.bytes_down
        self._happened(Arrival(reply.time, update))

    def _introduce(self, id: int, reply: Message) -> None:
        """A node said which client it is."""
        try:
            client = client_of(reply)
        except WireError as error:
            self._fail(id, printable(str(error)))
            return
        if self._population is not None and client >= self._population:
            self._fail(id, f"it says that it is client {client} of {self._population}")
        elif self._nodes.introduce(id, client):
            self._joined(id)

    def _joined(self, id: int) -> None:
        client = self._nodes.client_of(id)
        assert client is not None
        self._happened(Joined(self.now(), client))

    def _fail(self, id: int, reason: str) -> None:
        if (client := self._nodes.fail(id, now := self.now(), reason)) is not None:
            self._happened(Lost(now, client, reason))

    def _happened(self, event: Event) -> None:
        """Queue an event. Times never run backwards, not even past a deadline that was served before this was seen."""
        time = max(event.time, self._events[-1].time if self._events else self._time)
        if isinstance(event, Arrival):
            event.update.arrived_at = time
        self._events.append(replace(event, time=time))
