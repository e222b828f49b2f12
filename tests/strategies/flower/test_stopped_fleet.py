"""A server of real clients that is stopped, and another that goes on: what was in flight is lost, and asked anew."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from flwr.app import Context, Message

from fedmtl.protocol import Arrival, Event, Joined, Lost
from fedmtl.state import join, split
from simulations.signals import interruptible
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.flower.dispatched import STOPPED, Dispatched
from strategies.flower.fleet import GridFleet
from strategies.recipes.fedasync import fedasync
from strategies.recipes.fedavg import fedavg
from strategies.recipes.fedcompass import fedcompass
from strategies.recipes.fedqs import fedqs

Initialise = Callable[[Strategy], Strategy]
FAST = 50.0


class Watcher(Observer):
    """Keeps the events, and hands each to a function."""

    def __init__(self, then: Callable[[Loop, Event], None] = lambda loop, event: None) -> None:
        self.events: list[Event] = []
        self._then = then

    def after_event(self, loop: Loop, event: Event) -> None:
        self.events.append(event)
        self._then(loop, event)


def fleet_on(grid: Any, **options: Any) -> GridFleet:
    defaults = {"expected": 3, "ttl": 2500.0, "patience": 2500.0, "poll": 0.002}
    return GridFleet(grid, clock=lambda: FAST * time.monotonic(), **{**defaults, **options})


def run(loop: Loop, versions: int) -> None:
    end = time.monotonic() + 60
    try:
        loop.run(lambda loop: "done" if loop.strategy.model.version >= versions or time.monotonic() > end else None)
    finally:
        loop.fleet.close()


def through_json(state: Any) -> Any:
    plain, tensors = split(state)
    return join(json.loads(json.dumps(plain)), tensors)


def never(message: Message, context: Context) -> Message | None:
    return None


def never_trains(grid: Any) -> Callable[[Message, Context], Message | None]:
    return lambda message, context: None if message.metadata.message_type == "train" else grid.work(message, context)


@pytest.mark.parametrize("recipe", [fedasync, fedavg, lambda: fedqs(buffer_size=2), fedcompass])
def test_a_restored_fleet_goes_on_with_what_was_in_flight_lost_and_asked_anew(
    recipe: Callable[[], Strategy], grid: Any, initialised: Initialise
) -> None:
    def stop_at_two(loop: Loop, event: Event) -> None:
        if loop.strategy.model.version >= 2:
            loop.interrupt()

    first = Loop(initialised(recipe()), fleet_on(grid), [Watcher(stop_at_two)])
    run(first, 100)
    assert first.interrupted
    state = through_json(first.state_dict())
    busy = {client for client, *_ in state["strategy"]["in_flight"]}
    assert set(state["fleet"]["owing"]) == busy
    assert busy

    grid.messages.clear()  # another server, another run: what was in flight is nobody's
    watcher = Watcher()
    second = Loop(initialised(recipe()), fleet_on(grid), [watcher])
    second.load_state_dict(state)
    assert second.fleet.now() >= state["fleet"]["now"]
    run(second, 6)
    # Updates that the guard held at first are judged at once, and may then make several versions.
    assert 6 <= second.strategy.model.version <= 8
    assert not grid.crowded
    lost = [event for event in watcher.events if isinstance(event, Lost)]
    assert {(event.client, event.reason) for event in lost} == {(client, STOPPED) for client in busy}
    assert {event.client for event in watcher.events if isinstance(event, Joined)} == busy
    jobs = [event.update.key for event in watcher.events if isinstance(event, Arrival)]
    assert len(set(jobs)) == len(jobs)
    assert all(job >= dict(state["strategy"]["next_job"])[client] for client, job in jobs), "a job number came twice"


def test_a_client_that_is_gone_when_the_server_is_back_is_lost_and_may_join_later(
    grid: Any, initialised: Initialise
) -> None:
    first = Loop(initialised(fedavg()), fleet_on(grid), [Watcher(lambda loop, event: loop.interrupt())])
    run(first, 100)
    state = through_json(first.state_dict())
    grid.messages.clear()
    grid.online.discard(101)

    def come_back(loop: Loop, event: Event) -> None:
        if loop.strategy.model.version >= 2:
            grid.online.add(101)

    watcher = Watcher(come_back)
    second = Loop(initialised(fedavg()), fleet_on(grid, expected=2), [watcher])
    second.load_state_dict(state)
    run(second, 8)
    mine = [event for event in watcher.events if getattr(event, "client", None) == 1]
    assert [type(event) for event in mine] == [Lost, Joined]
    assert any(isinstance(event, Arrival) and event.update.client == 1 for event in watcher.events)


@pytest.mark.parametrize("waits_for", ["clients", "updates", "nodes"])
def test_a_signal_ends_a_server_that_waits(
    waits_for: str, grid: Any, initialised: Initialise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long training takes, and even where the SuperLink is gone and Flower tries for ever to reach it."""
    for node in grid.online:
        grid.behaviour[node] = never if waits_for == "clients" else never_trains(grid)
    fleet = fleet_on(grid, ttl=1e6, patience=1e6)
    loop = Loop(initialised(fedavg()), fleet)
    listed = grid.get_node_ids

    def hang() -> list[int]:
        if loop.begun:
            threading.Event().wait(100)
        return listed()  # type: ignore[no-any-return]

    if waits_for == "nodes":
        monkeypatch.setattr(grid, "get_node_ids", hang)
    started, over = time.monotonic(), threading.Event()

    def stop() -> None:
        while waits_for != "clients" and not loop.begun and not over.wait(0.01):
            pass
        if not over.wait(0.7):  # by then it waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with interruptible(loop):
            loop.run(lambda loop: None)
    finally:
        fleet.close()
        over.set()
        stopper.join()
    assert loop.interrupted
    assert time.monotonic() - started < 50
    assert loop.begun == (waits_for != "clients")
    if loop.begun:
        assert fleet.state_dict()["owing"] == [0, 1, 2]


@pytest.mark.slow
def test_a_grid_that_fails_now_and_then_ends_nothing(
    grid: Any, initialised: Initialise, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, push, calls = grid.get_node_ids, grid.push_messages, iter(range(10**6))

    def flaky(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if next(calls) % 3 == 1:
                raise httpx.ReadTimeout("no answer")
            return work(*args)

        return call

    monkeypatch.setattr(grid, "get_node_ids", flaky(listed))
    monkeypatch.setattr(grid, "push_messages", flaky(push))
    loop = Loop(initialised(fedasync()), fleet_on(grid), [watcher := Watcher()])
    run(loop, 8)
    assert loop.strategy.model.version == 8
    assert all(event.reason == "the grid refused the message" for event in watcher.events if isinstance(event, Lost))


def test_a_node_that_gives_a_number_beyond_the_experiments_clients_is_left_out(grid: Any) -> None:
    fleet = fleet_on(grid, expected=2, population=2)
    assert list(fleet.clients()) == [0, 1]
    fleet.close()


def test_what_the_strategy_knows_already_is_not_told_again() -> None:
    dispatched = Dispatched()
    dispatched.begins([0, 1])
    dispatched.ordered(0)
    assert dispatched.is_news(Lost(1.0, 0, "gone"))
    assert not dispatched.is_news(Lost(2.0, 0, "still gone"))
    assert not dispatched.is_news(Joined(3.0, 1))
    assert dispatched.is_news(Joined(4.0, 0))
    assert dispatched.state_dict() == {"present": [0, 1], "owing": []}
