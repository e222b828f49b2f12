"""Messages in flight: sent one by one, each watched by a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from flwr.app import Message
from flwr.serverapp import Grid
from httpx import HTTPError

_log = logging.getLogger(__name__)


class Reply(NamedTuple):
    """What came of a message: the id it was sent under, when, and the reply, or the fault that reading it raised."""

    id: str
    time: float
    content: Message | Exception


class Mailbox:
    """Sends messages to a grid and gathers the replies in the order in which they come.

    A grid's pull blocks while a reply is being uploaded, for minutes if the uploading node stalls. So each message has
    a thread that pulls for it alone, and no node can keep another's reply waiting.

    Parameters
    ----------
    grid
        Where to send.
    clock
        Seconds; stamps the replies.
    poll
        Seconds between two pulls for a message. Many messages in flight are pulled for less often, so that the grid
        sees at most 200 pulls a second.

    Examples
    --------
    A grid that is not in reach has no nodes, and nothing comes of it:

    >>> import time
    >>> from flwr.serverapp import Grid
    >>> from httpx import ConnectError
    >>> from strategies.flower.mailbox import Mailbox
    >>> class Unreachable(Grid):
    ...     run = set_run = create_message = push_messages = pull_messages = send_and_receive = None
    ...     def get_node_ids(self):
    ...         raise ConnectError("no route to host")
    >>> mailbox = Mailbox(Unreachable(), clock=time.monotonic)
    >>> mailbox.nodes(), mailbox.receive(timeout=0.0)
    ([], None)
    """

    def __init__(self, grid: Grid, clock: Callable[[], float], poll: float = 0.1) -> None:
        self._grid = grid
        self._clock = clock
        self._poll = poll
        self._open: set[str] = set()
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._closed = threading.Event()

    def nodes(self) -> list[int]:
        """The nodes that the grid lists; none if it does not answer."""
        try:
            return list(self._grid.get_node_ids())
        except HTTPError as error:
            _log.warning("the grid does not say which nodes it has: %s", error)
            return []

    def send(self, message: Message) -> str | None:
        """Send a message; returns its id, or None if the grid refuses it."""
        # One at a time: of several, some grids return fewer ids, others None in between.
        try:
            ids = [id for id in self._grid.push_messages([message]) if id is not None]
        except HTTPError as error:
            _log.warning("the grid took no message: %s", error)
            return None
        if not ids:
            return None
        self._open.add(ids[0])
        threading.Thread(target=self._watch, args=(ids[0],), name=f"pull-{ids[0][:8]}", daemon=True).start()
        return ids[0]

    def receive(self, timeout: float) -> Reply | None:
        """The next reply, or None after so many seconds."""
        try:
            return self._replies.get(timeout=timeout) if timeout > 0 else self._replies.get_nowait()
        except queue.Empty:
            return None

    def drop(self, id: str) -> None:
        """Stop waiting for a reply."""
        self._open.discard(id)

    def close(self) -> None:
        """Stop waiting for any reply."""
        self._open.clear()
        self._closed.set()

    def _watch(self, id: str) -> None:
        while not self._closed.wait(max(self._poll, 0.005 * len(self._open))) and id in self._open:
            try:
                replies = list(self._grid.pull_messages([id]))
            except Exception as error:  # a damaged reply raises whatever its bytes make it raise; the fleet judges it
                self._replies.put(Reply(id, self._clock(), error))
                return
            if replies:
                self._replies.put(Reply(id, self._clock(), replies[0]))
                return
