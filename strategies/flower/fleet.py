"""The fleet of real clients: Flower's SuperNodes, in wall-clock time."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flwr.app import Message
from flwr.serverapp import Grid

from fedmtl.errors import UserError
from fedmtl.protocol import Arrival, Deadline, Event, Joined, Lost, TrainOrder
from fedmtl.wire import WireError, size
from strategies.fleet import Fleet
from strategies.flower.mailbox import Mailbox, Reply
from strategies.flower.messages import client_of, error_of, query_message, train_message, update_of

_log = logging.getLogger(__name__)

_SWEEP = 1.0
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0
_GRACE = 5.0


@dataclass(slots=True)
class _Node:
    """A node that was seen: which client it is (None: it has not said yet), and from when on it may be written to."""

    client: int | None = None
    retry_at: float = 0.0
    delay: float = _FIRST_RETRY

    def back_off(self, now: float) -> None:
        self.retry_at = now + self.delay
        self.delay = min(2 * self.delay, _LAST_RETRY)


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

    Parameters
    ----------
    grid
        The grid of a server app.
    expected
        How many clients to wait for at the start.
    ttl
        Seconds that a client has for an order. After that it is lost, and what it sends then is dropped.
    patience
        Seconds to wait for the expected clients, and for anything to happen while no order is in flight.
    poll
        Seconds between two pulls for a reply.
    clock
        Seconds of wall-clock time.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        expected: int = 1,
        ttl: float = 3600.0,
        patience: float = 600.0,
        poll: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        start = clock()
        self._grid = grid
        self._expected = expected
        self._ttl = ttl
        self._patience = patience
        self._clock: Callable[[], float] = lambda: clock() - start
        self._mailbox = Mailbox(grid, self._clock, poll)
        self._nodes: dict[int, _Node] = {}
        self._serving: dict[int, int] = {}  # client -> node
        self._calls: dict[str, _Call] = {}
        self._busy: set[int] = set()  # nodes with a message in flight
        self._events: deque[Event] = deque()
        self._time = 0.0  # of the last event served
        self._swept_at = -_SWEEP
        self._quiet_since = 0.0

    def clients(self) -> Sequence[int]:
        """The clients that are connected as soon as enough are and no node still owes the answer who it is.

        Raises
        ------
        UserError
            If they are not within `patience` seconds.
        """
        until = self.now() + self._patience
        while len(self._serving) < self._expected or self._calls:
            if self.now() >= until:
                if len(self._serving) >= self._expected:
                    break
                raise UserError(
                    f"{len(self._serving)} of {self._expected} clients connected within {self._patience:g} s"
                    f" (clients {sorted(self._serving)}, of {len(self._nodes)} nodes): start the missing SuperNodes,"
                    " each with a partition-id of its own"
                )
            self._work(until)
        self._events.clear()  # they say who joined, as does the answer
        self._quiet_since = self.now()
        return sorted(self._serving)

    def now(self) -> float:
        """Seconds since the fleet was made."""
        return self._clock()

    def send(self, orders: Sequence[TrainOrder]) -> None:
        """Send each order to its client's node; a client whose node cannot be written to is lost."""
        for order in orders:
            node = self._serving.get(order.client)
            if node is None:
                self._happened(Lost(self.now(), order.client, "not connected"))
            elif node in self._busy:
                raise RuntimeError(
                    f"client {order.client} was given an order while its node {node} has a message in flight"
                )
            elif not self._push(node, train_message(order, node, self._ttl), order):
                self._lose(node, "the grid refused the message")

    def next_event(self, until: float | None) -> Event | None:
        """The next event, or a `Deadline` at `until`; None if for long nothing happens and no order is out."""
        while True:
            self._gather(0.0)
            if self._events and (until is None or self._events[0].time <= until):
                self._quiet_since = self.now()
                self._time = self._events[0].time
                return self._events.popleft()
            if until is not None and self.now() >= until:
                self._time = max(self._time, until)
                return Deadline(self._time)
            if until is None and not self._calls and self.now() - self._quiet_since > self._patience:
                return None
            self._work(until)

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
            self._lose(call.node, f"no answer within {self._ttl:g} s")
        waits = [_SWEEP, *([] if until is None else [until - self.now()])]
        if not self._events:
            self._gather(max(0.0, min(waits)))

    def _sweep(self) -> None:
        """Ask unknown nodes who they are, and take back nodes that are there again."""
        now = self._swept_at = self.now()
        for id in self._grid.get_node_ids():
            node = self._nodes.setdefault(id, _Node())
            if id in self._busy or now < node.retry_at or self._serves(id):
                continue
            if node.client is None:
                if not self._push(id, query_message(id, self._ttl), None):
                    node.back_off(now)
            elif node.client not in self._serving:
                self._admit(id, node.client)

    def _serves(self, id: int) -> bool:
        client = self._nodes[id].client
        return client is not None and self._serving.get(client) == id

    def _admit(self, id: int, client: int) -> None:
        self._serving[client] = id
        _log.info("client %d joined (node %d)", client, id)
        self._happened(Joined(self.now(), client))

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
        fault = f"unreadable reply: {message!r}"[:300] if isinstance(message, Exception) else error_of(message)
        if fault is not None:
            self._lose(call.node, fault)
            return
        assert isinstance(message, Message)
        if call.order is None:
            self._introduce(call.node, message)
            return
        self._nodes[call.node].delay = _FIRST_RETRY
        update = update_of(message, call.order)
        update.dispatched_at, update.arrived_at = call.sent_at, reply.time
        update.bytes_down = call.bytes_down
        self._happened(Arrival(reply.time, update))

    def _introduce(self, id: int, reply: Message) -> None:
        """A node said which client it is."""
        node = self._nodes[id]
        try:
            node.client = client_of(reply)
        except WireError as error:
            _log.warning("node %d cannot take part: %s", id, error)
            node.back_off(self.now())
            return
        if node.client in self._serving:
            _log.warning(
                "node %d stands by: client %d is served by node %d", id, node.client, self._serving[node.client]
            )
        else:
            self._admit(id, node.client)

    def _lose(self, id: int, reason: str) -> None:
        node = self._nodes[id]
        node.back_off(self.now())
        if node.client is None:
            _log.warning("node %d did not say which client it is: %s", id, reason)
            return
        del self._serving[node.client]
        _log.warning("client %d lost (node %d): %s", node.client, id, reason)
        self._happened(Lost(self.now(), node.client, reason))

    def _happened(self, event: Event) -> None:
        """Queue an event. Times never run backwards, not even past a deadline that was served before this was seen."""
        time = max(event.time, self._events[-1].time if self._events else self._time)
        if isinstance(event, Arrival):
            event.update.arrived_at = time
        self._events.append(replace(event, time=time))
