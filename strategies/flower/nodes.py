"""The nodes of a grid, and which of them serves which client."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fedmtl.errors import UserError

_log = logging.getLogger(__name__)

_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0


@dataclass(slots=True)
class _Node:
    """A node that was seen: which client it is (None: it has not said yet), and from when on it may be written to."""

    client: int | None = None
    retry_at: float = 0.0
    delay: float = _FIRST_RETRY


class Nodes:
    """The nodes that were seen.

    A client is served by one node. Others that say they are this client stand by until it is lost.

    Attributes
    ----------
    serving
        The node of each client that is connected.

    Examples
    --------
    Two nodes say that they are client 3. The second stands by until the first is lost.

    >>> from strategies.flower.nodes import Nodes
    >>> nodes = Nodes()
    >>> [nodes.is_due(id, now=0.0) for id in (101, 102)]
    [True, True]
    >>> [nodes.introduce(id, client=3) for id in (101, 102)], nodes.serving
    ([True, False], {3: 101})
    >>> nodes.fail(101, now=5.0, reason="no answer")
    3
    >>> nodes.take_back(102), nodes.serving
    (True, {3: 102})
    >>> nodes.is_due(101, now=5.5), nodes.is_due(101, now=6.0)
    (False, True)
    """

    def __init__(self) -> None:
        self._nodes: dict[int, _Node] = {}
        self.serving: dict[int, int] = {}

    def too_few(self, expected: int, patience: float) -> UserError:
        """What to say when not enough clients are connected after so many seconds."""
        return UserError(
            f"{len(self.serving)} of {expected} clients connected within {patience:g} s (clients "
            f"{sorted(self.serving)}, of {len(self._nodes)} nodes): start the missing SuperNodes, each with a "
            "partition-id of its own"
        )

    def is_due(self, id: int, now: float) -> bool:
        """Whether a node that the grid lists is free to be asked, or to be taken back."""
        node = self._nodes.setdefault(id, _Node())
        return now >= node.retry_at and (node.client is None or self.serving.get(node.client) != id)

    def client_of(self, id: int) -> int | None:
        """Which client the node is, if it has said so."""
        return self._nodes[id].client

    def introduce(self, id: int, client: int) -> bool:
        """The node is this client; returns whether it serves it from now on."""
        self._nodes[id].client = client
        if (other := self.serving.get(client)) is not None:
            _log.warning("node %d stands by: client %d is served by node %d", id, client, other)
        return self.take_back(id)

    def take_back(self, id: int) -> bool:
        """Let the node serve its client, unless another does; returns whether it serves it from now on."""
        client = self._nodes[id].client
        if client is None or client in self.serving:
            return False
        self.serving[client] = id
        _log.info("client %d joined (node %d)", client, id)
        return True

    def answered(self, id: int) -> None:
        """The node did what it was asked: if it fails again, that is a new story."""
        self._nodes[id].delay = _FIRST_RETRY

    def fail(self, id: int, now: float, reason: str) -> int | None:
        """Leave the node alone for a while: 1 s, then 2 s, 4 s, at most 60 s; returns the client that is lost by it."""
        node = self._nodes[id]
        node.retry_at = now + node.delay
        node.delay = min(2 * node.delay, _LAST_RETRY)
        if node.client is None:
            _log.warning("node %d cannot take part: %s", id, reason)
            return None
        del self.serving[node.client]
        _log.warning("client %d lost (node %d): %s", node.client, id, reason)
        return node.client
