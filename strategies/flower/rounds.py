"""Rounds for callers that send messages and gather replies themselves: the one loop, fed round by round."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Aggregation, Arrival, Deadline, Event, GlobalModel, Joined, Lost, TrainOrder
from fedmtl.wire import WireError, size
from strategies.core.fleet import Fleet
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.flower.messages import (
    arrays_of,
    client_of,
    error_of,
    evaluate_message,
    query_message,
    train_message,
    update_of,
    vector_of,
)

_TTL = 3600.0


class Rounds(Observer):
    """A strategy driven in rounds over a grid.

    Parameters
    ----------
    strategy
        It must have been initialised.
    grid
        Where the caller sends the messages.

    Examples
    --------
    As long as nobody has connected, there is nothing to be sent, and no version is made:

    >>> from flwr.serverapp import Grid
    >>> from fedmtl.models import build_model
    >>> from fedmtl.parameters import ParameterLayout
    >>> from fedmtl.protocol import GlobalModel
    >>> from fedmtl.tasks import Task
    >>> from strategies.flower.messages import arrays_of
    >>> from strategies.flower.rounds import Rounds
    >>> from strategies.recipes.fedavg import fedavg
    >>> class Deserted(Grid):
    ...     run = set_run = create_message = push_messages = pull_messages = None
    ...     def get_node_ids(self):
    ...         return []
    ...     def send_and_receive(self, messages, *, timeout=None):
    ...         return []
    >>> network = build_model("linear", {}, (2,), [Task("height", "regression")], seed=0)
    >>> layout = ParameterLayout.of(network)
    >>> strategy = fedavg()
    >>> strategy.initialise(GlobalModel(0, layout.pack(network), layout))
    >>> rounds = Rounds(strategy, Deserted())
    >>> rounds.train_messages(arrays_of(strategy.model)), rounds.take([])
    ([], (None, None))
    """

    def __init__(self, strategy: Strategy, grid: Grid) -> None:
        self.grid = grid
        self._strategy = strategy
        self._fleet = RoundFleet(grid)
        self._loop = Loop(strategy, self._fleet, [self])
        self._newest: Aggregation | None = None
        self._begun = False

    def train_messages(self, arrays: ArrayRecord) -> list[Message]:
        """The messages of the orders that are due; the first time, `arrays` is the model to start from."""
        model = self._strategy.model
        vector = vector_of(arrays, model.layout)
        if not self._begun:
            self._begun = True
            start = GlobalModel(0, vector, model.layout)
            known = self._strategy
            known.initialise(start, known.settings, known.seed, known.model_seed)
        elif not vector.equal(model.vector):
            raise ValueError("the arrays are not the model that the strategy made; it keeps the model itself")
        self._fleet.refresh()
        self._loop.advance()
        return self._fleet.messages()

    def take(self, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Feed the replies to the loop; returns the newest model and its metrics; None twice if no version was made."""
        self._newest = None
        self._fleet.feed(replies)
        self._loop.advance()
        return self._made()

    def finish(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the step of a run's end, if the scheduler asks for one; returns as `take` does."""
        self._newest = None
        self._loop.end("the caller drives no more rounds")
        return self._made()

    def _made(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        if self._newest is None:
            return None, None
        model = self._strategy.model
        return arrays_of(model), step_metrics(self._newest, model.layout)

    def evaluate_messages(self, arrays: ArrayRecord) -> list[Message]:
        """A message to every connected client, to evaluate this model."""
        model = self._strategy.model
        self._fleet.refresh()
        shown = GlobalModel(model.version, vector_of(arrays, model.layout), model.layout)
        return [evaluate_message(shown, node, _TTL) for _, node in sorted(self._fleet.nodes.items())]

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Remember the newest server step."""
        self._newest = aggregation


class RoundFleet(Fleet):
    """A fleet whose orders wait to be fetched and whose events are handed in, a round at a time.

    Attributes
    ----------
    nodes
        The node of each connected client.

    Examples
    --------
    An order to a client that is not there:

    >>> from flwr.serverapp import Grid
    >>> from fedmtl.toy import toy_model
    >>> from strategies.flower.rounds import RoundFleet
    >>> from strategies.recipes.fedavg import fedavg
    >>> class Deserted(Grid):
    ...     run = set_run = create_message = push_messages = pull_messages = send_and_receive = None
    ...     def get_node_ids(self):
    ...         return []
    >>> strategy = fedavg()
    >>> strategy.initialise(toy_model([0.0]))
    >>> fleet = RoundFleet(Deserted())
    >>> fleet.send(strategy.orders(strategy.begin([7], now=0.0).decision.assignments))
    >>> fleet.next_event(None).reason, fleet.messages()
    ('not connected', [])
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._start = time.monotonic()
        self._due: list[TrainOrder] = []
        self._sent: list[tuple[Message, TrainOrder, float]] = []
        self._events: deque[Event] = deque()
        self._clients: dict[int, int] = {}  # node -> client, of every node that ever said who it is
        self.nodes: dict[int, int] = {}

    def clients(self) -> Sequence[int]:
        """The clients that are connected."""
        self._events.clear()  # they say who joined, as does the answer
        return sorted(self.nodes)

    def now(self) -> float:
        """Seconds of wall-clock time since the fleet was made."""
        return time.monotonic() - self._start

    def send(self, orders: Sequence[TrainOrder]) -> None:
        """Keep the orders until they are fetched; a client that is not connected is lost."""
        for order in orders:
            if order.client in self.nodes:
                self._due.append(order)
            else:
                self._events.append(Lost(self.now(), order.client, "not connected"))

    def next_event(self, until: float | None) -> Event | None:
        """The next event that was handed in; then, if no order is due, the deadline, as nothing can come before it."""
        if self._events:
            return self._events.popleft()
        if until is None or self._due:
            return None
        return Deadline(max(until, self.now()))

    def refresh(self) -> None:
        """See which nodes are there, and ask the unknown ones which client they are."""
        online = list(self._grid.get_node_ids())
        unknown = [node for node in online if node not in self._clients]
        for reply in self._grid.send_and_receive([query_message(node, _TTL) for node in unknown], timeout=_TTL):
            if error_of(reply) is None:
                try:
                    self._clients[reply.metadata.src_node_id] = client_of(reply)
                except WireError:
                    continue
        for node in online:
            client = self._clients.get(node)
            if client is not None and client not in self.nodes:
                self.nodes[client] = node
                self._events.append(Joined(self.now(), client))

    def messages(self) -> list[Message]:
        """Messages of the orders that are due; they count as sent."""
        sent = [(train_message(order, self.nodes[order.client], _TTL), order, self.now()) for order in self._due]
        self._sent += sent
        self._due = []
        return [message for message, _, _ in sent]

    def feed(self, replies: Iterable[Message]) -> None:
        """Make events of replies. Clients without a good reply are lost, and join again at once if they are there."""
        answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
        arrivals = []
        for message, order, sent_at in self._sent:
            reply = answers.get(message.metadata.message_id)
            fault = "no reply" if reply is None else error_of(reply)
            if reply is None or fault is not None:
                del self.nodes[order.client]
                self._events.append(Lost(self.now(), order.client, fault or "no reply"))
                continue
            update = update_of(reply, order)
            update.dispatched_at = sent_at
            update.bytes_down = size(message.content)
            arrivals.append(update)
        self._sent = []
        self.refresh()
        for update in arrivals:
            update.arrived_at = self.now()
            self._events.append(Arrival(update.arrived_at, update))


def step_metrics(aggregation: Aggregation, layout: ParameterLayout) -> MetricRecord:
    """Updates, mean staleness and each task's mean training loss of a server step."""
    metrics: dict[str, float | int] = {
        "updates": len(aggregation.updates),
        "staleness": sum(aggregation.staleness) / len(aggregation.staleness),
    }
    for task, name in enumerate(head_names(layout)):
        losses = [
            update.task_losses[update.tasks.index(task)]
            for update in aggregation.updates
            if task in update.tasks and update.task_losses
        ]
        if losses:
            metrics[f"{name}/loss"] = sum(losses) / len(losses)
    return MetricRecord(dict(metrics))


def head_names(layout: ParameterLayout) -> list[str]:
    """The names of the tasks, read off the names of their heads' parameters."""
    starts = {entry.start: entry.name.split(".")[1] for entry in layout.entries}
    return [starts[head.start] for head in layout.heads]


def mean_metrics(replies: Iterable[Message]) -> MetricRecord | None:
    """The clients' metrics ``task/metric``, each averaged with the clients' ``task/examples``, and the sums of these.

    Entries that are no finite numbers are left out: they come from outside.
    """
    totals: dict[str, float] = {}
    examples: dict[str, int] = {}
    for reply in replies:
        if error_of(reply) is not None:
            continue
        for record in reply.content.metric_records.values():
            weights = {key: n for key, n in record.items() if key.endswith("/examples") and type(n) is int and n > 0}
            for key, value in record.items():
                weight = weights.get(f"{key.rpartition('/')[0]}/examples", 0)
                if key in weights or not weight or not isinstance(value, float) or not math.isfinite(value):
                    continue
                totals[key] = totals.get(key, 0.0) + weight * value
                examples[key] = examples.get(key, 0) + weight
    if not totals:
        return None
    counts = {f"{key.rpartition('/')[0]}/examples": n for key, n in examples.items()}
    return MetricRecord({**{key: totals[key] / examples[key] for key in totals}, **counts})
