"""A Flower grid whose nodes live in this process: real messages, real client apps, no Ray and no network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Behaviour = Callable[[Message, Context], Message | None]
"""What a node does with a message; None: it never answers."""

# A message can only be made inside a run; there is no public way to say that this is one.
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


class InProcessGrid(Grid):
    """Nodes that run a client app when their reply is pulled.

    Attributes
    ----------
    online
        The nodes that are listed; they answer with error 5 once they are not.
    behaviour
        What a node does instead of running the client app.
    messages
        What is in flight.
    crowded
        Nodes that were sent a message while they had one in flight.
    """

    def __init__(self, app: ClientApp, partitions: Iterable[int], run_config: dict[str, Any]) -> None:
        self._app = app
        self._run_config = run_config
        self._lock = threading.Lock()
        self.messages: dict[str, Message] = {}
        self._counter = 0
        self.online: set[int] = set()
        self.contexts: dict[int, Context] = {}
        self.behaviour: dict[int, Behaviour] = {}
        self.crowded: list[int] = []
        for partition in partitions:
            self.connect(100 + partition, partition)

    def connect(self, node: int, partition: int) -> None:
        """A node comes."""
        config = {"partition-id": partition, "num-partitions": 1}
        self.contexts[node] = Context(1, node, config, RecordDict(), dict(self._run_config))  # type: ignore[arg-type]
        self.online.add(node)

    def get_node_ids(self) -> list[int]:
        return sorted(self.online)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            self._counter += 1
            id = f"message-{self._counter}"
            node = message.metadata.dst_node_id
            if any(other.metadata.dst_node_id == node for other in self.messages.values()):
                self.crowded.append(node)
            message.metadata.__dict__["_message_id"] = id
            self.messages[id] = message
            ids.append(id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for id in message_ids:
            try:
                reply = self._answer(id)
            except ValueError:
                del self.messages[id]
                raise
            if reply is not None:
                del self.messages[id]
                replies.append(reply)
        return replies

    def _answer(self, id: str) -> Message | None:
        message = self.messages[id]
        metadata = message.metadata
        if metadata.dst_node_id not in self.online:
            return self.error(message, 5, "node unavailable")
        if time.time() > metadata.created_at + metadata.ttl:
            return self.error(message, 3, "message expired")
        context = self.contexts[metadata.dst_node_id]
        behaviour = self.behaviour.get(metadata.dst_node_id)
        if behaviour is not None:
            return behaviour(message, context)
        try:
            return self.work(message, context)
        except Exception as error:  # as Flower does: whatever an app raises becomes an error reply
            return self.error(message, 2, f"{type(error).__name__}: {error}")

    def work(self, message: Message, context: Context) -> Message:
        """Run the client app; one node at a time, as all share one process."""
        with self._lock:
            return self._app(message, context)

    def error(self, message: Message, code: int, reason: str) -> Message:
        """An error reply."""
        return Message(Error(code, reason), reply_to=message)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError
