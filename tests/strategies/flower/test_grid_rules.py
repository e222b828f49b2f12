"""The rules for living with Flower that no other test of the fleet of real clients holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from flwr.app import Context, Message

from clients import client_app
from fedmtl.protocol import Aggregation
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.flower.fleet import GridFleet
from strategies.flower.mailbox import Mailbox
from strategies.flower.messages import query_message
from strategies.recipes.fedasync import fedasync
from strategies.recipes.fedqs import fedqs

Initialise = Callable[[Strategy], Strategy]
FAST = 50.0
TTL = 2500.0


class Steps(Observer):
    """Keeps the server steps."""

    def __init__(self) -> None:
        self.steps: list[Aggregation] = []

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.steps.append(aggregation)


def fleet_on(grid: Any, *, expected: int = 3) -> GridFleet:
    return GridFleet(grid, expected=expected, ttl=TTL, patience=TTL, poll=0.002, clock=lambda: FAST * time.monotonic())


def run(strategy: Strategy, fleet: GridFleet, versions: int) -> list[Aggregation]:
    watch, end = Steps(), time.monotonic() + 60
    try:
        Loop(strategy, fleet, [watch]).run(
            lambda loop: "done" if loop.strategy.model.version >= versions or time.monotonic() > end else None
        )
    finally:
        fleet.close()
    assert strategy.model.version == versions
    return watch.steps


@pytest.mark.slow
def test_nodes_that_register_after_the_server_started_are_waited_for(grid: Any) -> None:
    """Flower starts the server app before its nodes register, so that at first there may be none."""
    nodes, grid.online = sorted(grid.online), set()
    fleet = fleet_on(grid)

    def register() -> None:
        for node in nodes:
            time.sleep(0.03)
            grid.online.add(node)

    later = threading.Thread(target=register)
    later.start()
    assert list(fleet.clients()) == [0, 1, 2]
    later.join(10)
    fleet.close()


def test_messages_go_one_by_one_and_each_says_how_long_it_lives(
    grid: Any, initialised: Initialise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless told, Flower keeps a message for twelve hours."""
    pushed: list[list[float]] = []
    push = grid.push_messages

    def note(messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        pushed.append([message.metadata.ttl for message in messages])
        return push(messages)  # type: ignore[no-any-return]

    monkeypatch.setattr(grid, "push_messages", note)
    run(initialised(fedasync()), fleet_on(grid), 6)
    assert len(pushed) >= 3 + 6
    assert all(ttls == [TTL] for ttls in pushed)


def test_an_answer_is_pulled_once(grid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once pulled it is gone, and Flower answers the next pull with an error that looks like a lost node."""
    pulls: list[bool] = []  # whether each brought the answer
    pull = grid.pull_messages

    def note(ids: Iterable[str]) -> list[Message]:
        if True in pulls:
            pulls.append(False)
            return []
        replies = list(pull(ids))
        pulls.append(bool(replies))
        return replies

    monkeypatch.setattr(grid, "pull_messages", note)
    mailbox = Mailbox(grid, time.monotonic, poll=0.001)
    id = mailbox.send(query_message(101, TTL))
    reply = mailbox.receive(60.0)
    watchers = [thread for thread in threading.enumerate() if thread.name == f"pull-{id}"[:13]]
    for thread in watchers:  # nobody dropped the message: the thread must end by itself
        thread.join(5.0)
    alive = [thread for thread in watchers if thread.is_alive()]
    mailbox.close()
    assert reply is not None
    assert reply.id == id
    assert not alive
    assert pulls.index(True) == len(pulls) - 1


def test_times_are_the_servers(grid: Any, initialised: Initialise, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an order was sent and answered is noted here, whatever clock a node has."""
    fleet, sent = fleet_on(grid), {}
    push = grid.push_messages

    def note(messages: list[Message]) -> list[str]:
        (message,) = messages
        ids = push(messages)
        sent[message.metadata.dst_node_id, message.metadata.group_id] = fleet.now()
        return ids  # type: ignore[no-any-return]

    monkeypatch.setattr(grid, "push_messages", note)
    steps = run(initialised(fedasync()), fleet, 9)
    for step in steps:
        for update in step.updates:
            assert step.staleness == (step.version - 1 - update.base_version,)
            assert 0 < update.dispatched_at <= sent[100 + update.client, str(update.base_version)]
            assert update.dispatched_at < update.arrived_at <= step.time


def test_nothing_hangs_on_a_process_that_lives_on_between_messages(
    grid: Any, initialised: Initialise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node's process may be new for each message: only what is in its context lasts."""

    def run_alone(behaviour: Callable[[Message, Context], Message] | None) -> torch.Tensor:
        grid.online = {101}
        grid.contexts[101].state.clear()
        grid.behaviour = {} if behaviour is None else {101: behaviour}
        strategy = initialised(fedqs(buffer_size=1))
        steps = run(strategy, fleet_on(grid, expected=1), 5)
        similarities = [update.terms.get("similarity") for step in steps for update in step.updates]
        assert similarities[0] is None
        assert None not in similarities[1:], "the node kept no last update"
        return strategy.model.vector

    def restarted(message: Message, context: Context) -> Message:
        client_app._node.cache_clear()
        return grid.work(message, context)  # type: ignore[no-any-return]

    assert torch.equal(run_alone(restarted), run_alone(None))
