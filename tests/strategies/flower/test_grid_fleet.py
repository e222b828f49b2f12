"""The fleet of real clients: what nodes do becomes events, and no node can stop a run.

Long because every way in which a node can fail has its scene.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedmtl.errors import UserError
from fedmtl.protocol import Aggregation, Arrival, Deadline, Event, Joined, Lost, Rejection
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.flower.fleet import GridFleet
from strategies.recipes.fedasync import fedasync
from strategies.recipes.fedavg import fedavg
from strategies.recipes.fedbuff import fedbuff
from strategies.recipes.fedqs import fedqs

Initialise = Callable[[Strategy], Strategy]
FAST = 50.0
"""The fleet's clock runs this much faster, so that back-off takes milliseconds."""


class Watcher(Observer):
    """Keeps everything that happened, and checks on the way that time never runs backwards."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.steps: list[Aggregation] = []
        self.rejections: list[Rejection] = []

    def after_event(self, loop: Loop, event: Event) -> None:
        assert not self.events or event.time >= self.events[-1].time
        assert event.time <= loop.fleet.now()
        self.events.append(event)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.steps.append(aggregation)

    def on_rejection(self, loop: Loop, rejection: Rejection) -> None:
        self.rejections.append(rejection)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def fleet_on(grid: Any, **options: Any) -> GridFleet:
    defaults = {"expected": 3, "ttl": 2500.0, "patience": 2500.0, "poll": 0.002}
    return GridFleet(grid, clock=lambda: FAST * time.monotonic(), **{**defaults, **options})


def run(
    strategy: Strategy, grid: Any, stop: Callable[[Watcher, Loop], bool], seconds: float = 60, **options: Any
) -> tuple[Loop, Watcher]:
    watcher, fleet = Watcher(), fleet_on(grid, **options)
    loop = Loop(strategy, fleet, [watcher])
    calls = itertools.count()
    end = time.monotonic() + seconds

    def done(loop: Loop) -> str | None:
        assert next(calls) < 100_000, "the run spins"
        assert time.monotonic() < end, "the run hangs"
        return "done" if stop(watcher, loop) else None

    try:
        loop.run(done)
    finally:
        fleet.close()
    assert not grid.crowded, "a node had two messages in flight"
    return loop, watcher


def versions(count: int) -> Callable[[Watcher, Loop], bool]:
    return lambda watcher, loop: loop.strategy.model.version >= count


def test_an_asynchronous_strategy_runs_on_real_messages(grid: Any, initialised: Initialise) -> None:
    loop, watcher = run(initialised(fedasync()), grid, versions(12))
    assert [step.version for step in watcher.steps] == list(range(1, 13))
    updates = [update for step in watcher.steps for update in step.updates]
    assert {update.client for update in updates} == {0, 1, 2}
    assert all(step.staleness[0] == step.version - 1 - step.updates[0].base_version for step in watcher.steps)
    assert max(step.staleness[0] for step in watcher.steps) >= 1
    assert all(update.duration > 0 for update in updates)
    size = 4 * loop.strategy.model.layout.size
    assert all(size < update.bytes_up < size + 3000 and update.bytes_down > size for update in updates)


def test_a_client_keeps_its_own_state_on_its_node(grid: Any, initialised: Initialise) -> None:
    """FedQS compares a client's last update with the global step: it can only if the node kept that update."""
    _, watcher = run(initialised(fedqs(buffer_size=2)), grid, versions(8))
    reported = [update.terms.get("similarity") for step in watcher.steps for update in step.updates if update.job >= 2]
    assert any(similarity is not None for similarity in reported)


def test_a_strategy_with_deadlines_is_woken_at_them(grid: Any, initialised: Initialise) -> None:
    _, watcher = run(initialised(fedbuff(buffer_size=2, clock="tick")), grid, versions(6))
    assert [len(step.updates) for step in watcher.steps] == [2] * 6
    assert len(watcher.of(Deadline)) >= 6


def test_an_error_reply_loses_the_client_which_joins_again_later(grid: Any, initialised: Initialise) -> None:
    failures = iter(range(2))

    def fail_twice(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "train" and next(failures, None) is not None:
            return grid.error(message, 2, "ValueError: out of memory")
        return grid.work(message, context)

    grid.behaviour[101] = fail_twice

    def recovered(watcher: Watcher, loop: Loop) -> bool:
        return any(isinstance(event, Arrival) and event.update.client == 1 for event in watcher.events)

    _, watcher = run(initialised(fedasync()), grid, recovered)
    first, second = watcher.of(Lost)
    assert (first.client, first.reason) == (1, "error 2: ValueError: out of memory")
    again, finally_ = watcher.of(Joined)
    assert again.client == finally_.client == 1
    assert again.time - first.time >= 1.0
    assert finally_.time - second.time >= 2.0, "the second time it waits longer"


def test_a_dead_node_costs_one_error_not_a_storm(grid: Any, initialised: Initialise) -> None:
    def die(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "train":
            grid.online.discard(102)
            return grid.error(message, 5, "node unavailable")
        return grid.work(message, context)

    grid.behaviour[102] = die
    _, watcher = run(initialised(fedasync()), grid, versions(20))
    assert [event.client for event in watcher.of(Lost)] == [2]
    assert not watcher.of(Joined)


def test_a_restarted_node_takes_over_its_client(grid: Any, initialised: Initialise) -> None:
    """Without a key, a SuperNode that is started again gets a new node id, while the old one is listed for a while."""

    def restart(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "train":
            if 999 not in grid.online:
                grid.connect(999, 2)
                return None
            if time.monotonic() < noticed_at:
                return None
            grid.online.discard(102)
            return grid.error(message, 5, "node unavailable")
        return grid.work(message, context)

    noticed_at = time.monotonic() + 0.3
    grid.behaviour[102] = restart

    def taken_over(watcher: Watcher, loop: Loop) -> bool:
        return any(isinstance(event, Arrival) and event.update.client == 2 for event in watcher.events)

    _, watcher = run(initialised(fedasync()), grid, taken_over)
    assert [event.client for event in watcher.of(Lost)] == [2]
    assert [event.client for event in watcher.of(Joined)] == [2]


@pytest.mark.slow
def test_an_order_that_is_not_answered_in_time_is_given_up(grid: Any, initialised: Initialise) -> None:
    def never(message: Message, context: Context) -> Message | None:
        return None if message.metadata.message_type == "train" else grid.work(message, context)

    grid.behaviour[100] = never
    _, watcher = run(initialised(fedavg()), grid, versions(1), ttl=100.0)
    assert [(event.client, event.reason) for event in watcher.of(Lost)] == [(0, "no answer within 100 s")]
    assert {update.client for update in watcher.steps[0].updates} == {1, 2}


@pytest.mark.slow
def test_a_node_that_stalls_while_uploading_delays_nobody(grid: Any, initialised: Initialise) -> None:
    """The grid's pull blocks for minutes then; here until the test is over."""
    over = threading.Event()

    def stall(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "train":
            over.wait(50)
            return grid.error(message, 3, "upload not finished")
        return grid.work(message, context)

    grid.behaviour[101] = stall
    try:
        _, watcher = run(initialised(fedasync()), grid, versions(10))
    finally:
        over.set()
    assert {update.client for step in watcher.steps for update in step.updates} == {0, 2}


def content(text: str, arrays: dict[str, np.ndarray]) -> RecordDict:
    tensors = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return RecordDict({"state": ConfigRecord({"json": text}), "tensors": tensors})


def altered(**changes: Any) -> Callable[[RecordDict], RecordDict]:
    """A good answer but for some fields."""

    def alter(good: RecordDict) -> RecordDict:
        state = json.loads(good["state"]["json"]) | changes  # type: ignore[index]
        good["state"]["json"] = json.dumps(state)  # type: ignore[index]
        return good

    return alter


MALFORMED: dict[str, tuple[Callable[[RecordDict], RecordDict], str]] = {
    "empty": (lambda good: RecordDict(), "lacks a part"),
    "no text": (lambda good: content("{", {}), "cannot be read"),
    "no update": (lambda good: content('{"client": 0}', {}), "fields differ"),
    "other job": (altered(job=7), "answers job 7 of client 1"),
    "other client": (altered(client=0), "answers job 0 of client 0"),
    "unknown task": (altered(tasks=[0, 1, 2, 99]), "claims the tasks (0, 1, 2, 99) of 4"),
    "infinite trace": (altered(task_traces=[float("inf")] * 4), "task_traces is not finite"),
    "text for a number": (altered(steps="many"), "steps is 'many'"),
    "huge number": (altered(examples=10**400), "examples is"),
    "missing tensor": (altered(delta={"$tensor": "t9"}), "lacks a part"),
    "wrong version": (altered(base_version=4), "claims version 4"),
    "wrong shape": (
        lambda good: content(good["state"]["json"], {"t0": np.zeros(3, np.float32)}),  # type: ignore[index]
        "of shape (3,)",
    ),
    "objects": (
        lambda good: content(good["state"]["json"], {"t0": np.zeros(3, "S4")}),  # type: ignore[index]
        "expected one of",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_reply_is_rejected_with_the_reason(kind: str, grid: Any, initialised: Initialise) -> None:
    damage, reason = MALFORMED[kind]
    damaged = []

    def lie_once(message: Message, context: Context) -> Message | None:
        reply = grid.work(message, context)
        if message.metadata.message_type == "train" and not damaged:
            damaged.append(reply)
            return Message(damage(reply.content), reply_to=message)
        return reply

    grid.behaviour[101] = lie_once
    _, watcher = run(initialised(fedasync()), grid, lambda watcher, loop: bool(watcher.rejections))
    (rejection,) = watcher.rejections
    assert rejection.update.key == (1, 0)
    assert reason in rejection.reason


def npy_array(data: bytes) -> Array:
    return Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=data)


@pytest.mark.slow
def test_nothing_malformed_is_applied_on_real_messages(
    grid: Any, initialised: Initialise, malformed: ModuleType
) -> None:
    """``FEDMTL_MALFORMED_GRID=1000`` in the environment tries so many."""
    count, kinds = malformed.count_of("MALFORMED_GRID", 30), []

    def lie(message: Message, context: Context) -> Message | None:
        reply = grid.work(message, context)
        if message.metadata.message_type != "train":
            return reply
        arrays = {name: array.numpy() for name, array in reply.content["tensors"].items()}
        number = len(kinds) if count > 100 else 7 * len(kinds)
        spoilt = malformed.malform(number, reply.content["state"]["json"], arrays)
        kinds.append(spoilt.kind)
        tensors = ArrayRecord({name: npy_array(data) for name, data in spoilt.arrays.items()})
        return Message(RecordDict({"state": ConfigRecord({"json": spoilt.text}), "tensors": tensors}), reply_to=message)

    grid.behaviour[101] = lie

    def enough(watcher: Watcher, loop: Loop) -> bool:
        return len(watcher.rejections) >= count

    loop, watcher = run(initialised(fedasync()), grid, enough, seconds=60 + count)
    assert {rejection.update.client for rejection in watcher.rejections} == {1}
    updates = [update for step in watcher.steps for update in step.updates]
    assert {update.client for update in updates} == {0, 2}
    assert loop.strategy.model.vector.abs().max() < 10.0
    assert all(rejection.reason.isprintable() for rejection in watcher.rejections)
    assert len(set(kinds)) >= min(count, 40) // 2


def test_real_clients_are_guarded(grid: Any, initialised: Initialise) -> None:
    """A client that sends 1e3 in every entry ruined asynchronous strategies at its first update."""

    def ruin(message: Message, context: Context) -> Message | None:
        reply = grid.work(message, context)
        if message.metadata.message_type == "train":
            (name,) = reply.content["tensors"]
            delta = reply.content["tensors"][name].numpy()
            tensors = ArrayRecord({name: Array(np.full_like(delta, 1e3))})
            return Message(RecordDict({"state": reply.content["state"], "tensors": tensors}), reply_to=message)
        return reply

    grid.behaviour[100] = ruin
    loop, watcher = run(initialised(fedasync()), grid, versions(6))
    assert {update.client for step in watcher.steps for update in step.updates} == {1, 2}
    assert all("times the median" in rejection.reason for rejection in watcher.rejections)
    assert watcher.rejections
    assert loop.strategy.guard.factor == 50.0


def test_a_reason_that_a_node_gives_is_recorded_printable(grid: Any, initialised: Initialise) -> None:
    grid.behaviour[101] = lambda message, context: (
        grid.error(message, 2, "\x1b[2J\x00gone\n" + "x" * 1000)
        if message.metadata.message_type == "train"
        else grid.work(message, context)
    )
    _, watcher = run(initialised(fedasync()), grid, lambda watcher, loop: bool(watcher.of(Lost)))
    assert watcher.of(Lost)[0].reason.startswith(
        "error 2: \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}gone xx"
    )
    assert len(watcher.of(Lost)[0].reason) <= 309


def test_a_reply_that_flower_cannot_read_loses_the_client(grid: Any, initialised: Initialise) -> None:
    def garbage(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "train":
            raise ValueError("not a protobuf message")
        return grid.work(message, context)

    grid.behaviour[101] = garbage
    _, watcher = run(initialised(fedasync()), grid, lambda watcher, loop: bool(watcher.of(Lost)))
    assert watcher.of(Lost)[0].client == 1
    assert "not a protobuf message" in watcher.of(Lost)[0].reason


def test_a_dead_ray_actor_ends_the_run(grid: Any, initialised: Initialise) -> None:
    grid.behaviour[101] = lambda message, context: grid.error(message, 0, "<class 'ray.exceptions.ActorDiedError'>")
    with pytest.raises(RuntimeError, match="actor of the simulation engine died"):
        run(initialised(fedasync()), grid, versions(1))


@pytest.mark.parametrize("ids", [[], [None]], ids=["short list", "None in place"])
def test_a_message_that_the_grid_refuses_loses_the_client(
    ids: list[None], grid: Any, initialised: Initialise, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = grid.push_messages

    def refuse(messages: list[Message]) -> list[Any]:
        (message,) = messages
        refused = message.metadata.dst_node_id == 100 and message.metadata.message_type == "train"
        return ids if refused else push(messages)

    monkeypatch.setattr(grid, "push_messages", refuse)
    _, watcher = run(initialised(fedavg()), grid, versions(1))
    assert [(event.client, event.reason) for event in watcher.of(Lost)] == [(0, "the grid refused the message")]


@pytest.mark.slow
def test_a_deadline_comes_when_nothing_else_does(grid: Any) -> None:
    fleet = fleet_on(grid)
    assert list(fleet.clients()) == [0, 1, 2]
    until = fleet.now() + 5
    event = fleet.next_event(until)
    assert event == Deadline(until)
    assert until <= fleet.now() < until + 500
    fleet.close()


@pytest.mark.slow
def test_nothing_happens_any_more_once_patience_ends(grid: Any) -> None:
    fleet = fleet_on(grid, patience=100.0)
    fleet.clients()
    assert fleet.next_event(None) is None
    fleet.close()


@pytest.mark.slow
def test_too_few_clients_are_an_error_that_says_who_is_there(flower_grid: ModuleType, grid: Any) -> None:
    grid.connect(555, 1)
    fleet = fleet_on(grid, expected=4, patience=100.0)
    with pytest.raises(UserError, match=r"3 of 4 clients connected within 100 s \(clients \[0, 1, 2\], of 4 nodes\)"):
        fleet.clients()
    fleet.close()


def test_a_node_without_a_valid_partition_is_left_out(grid: Any) -> None:
    grid.connect(555, 77)
    fleet = fleet_on(grid)
    assert list(fleet.clients()) == [0, 1, 2]
    fleet.close()
