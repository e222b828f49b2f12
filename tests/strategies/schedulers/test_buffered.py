from __future__ import annotations

import pytest

from fedmtl.errors import ConfigError
from fedmtl.protocol import Assignment, Decision, JobKey
from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.schedulers import Buffered
from strategies.weightings import Uniform


def begin(toys, clients: int, scheduler: Buffered, seed: int = 0) -> list[int]:
    scheduler.prepare(toys.start_model(), seed)
    return [assignment.client for assignment in scheduler.begin(range(clients), 0.0).assignments]


def keys(decision: Decision) -> list[JobKey]:
    return list(decision.aggregate)


def test_updates_are_aggregated_in_the_order_of_their_arrival(toys) -> None:
    scheduler = Buffered(buffer_size=3)
    assert begin(toys, 5, scheduler) == [0, 1, 2, 3, 4]
    first, second, third = (scheduler.on_update(toys.make_update(client), 1.0) for client in (4, 0, 2))
    assert first.aggregate == second.aggregate == ()
    assert first.assignments == (Assignment(4),)
    assert third == Decision((JobKey(4, 0), JobKey(0, 0), JobKey(2, 0)), "full", assignments=(Assignment(2),))


def test_a_client_may_occur_twice_in_a_buffer(toys) -> None:
    scheduler = Buffered(buffer_size=2)
    begin(toys, 2, scheduler)
    scheduler.on_update(toys.make_update(1, 0), 1.0)
    assert keys(scheduler.on_update(toys.make_update(1, 1), 2.0)) == [JobKey(1, 0), JobKey(1, 1)]


def test_a_tick_buffers_all_that_arrives_then_aggregates_then_gives_orders(toys) -> None:
    scheduler = Buffered(buffer_size=2, clock="tick")
    begin(toys, 5, scheduler)
    for client in range(5):
        assert scheduler.on_update(toys.make_update(client), 3.0) == Decision()
        assert scheduler.next_deadline() == 3.0
    steps = [scheduler.on_deadline(3.0) for _ in range(2)]
    assert [keys(step) for step in steps] == [[JobKey(0, 0), JobKey(1, 0)], [JobKey(2, 0), JobKey(3, 0)]]
    assert [[a.client for a in step.assignments] for step in steps] == [[], [0, 1, 2, 3, 4]]
    assert scheduler.next_deadline() is None


def test_one_per_tick_leaves_the_rest_for_the_next_tick(toys) -> None:
    scheduler = Buffered(buffer_size=2, clock="tick", buffer="one_per_tick", tick=0.5)
    begin(toys, 5, scheduler)
    for client in range(5):
        scheduler.on_update(toys.make_update(client), 3.0)
    step = scheduler.on_deadline(3.0)
    assert keys(step) == [JobKey(0, 0), JobKey(1, 0)]
    assert len(step.assignments) == 5
    assert scheduler.next_deadline() == 3.5
    assert keys(scheduler.on_deadline(3.5)) == [JobKey(2, 0), JobKey(3, 0)]
    assert scheduler.next_deadline() is None


def test_one_per_tick_takes_no_second_step_at_one_instant(toys) -> None:
    scheduler = Buffered(buffer_size=2, clock="tick", buffer="one_per_tick")
    begin(toys, 5, scheduler)
    for client in range(4):
        scheduler.on_update(toys.make_update(client), 3.0)
    assert scheduler.on_deadline(3.0).aggregate
    scheduler.on_update(toys.make_update(4), 3.0)
    assert scheduler.next_deadline() == 3.0
    assert not scheduler.on_deadline(3.0).aggregate
    assert scheduler.next_deadline() == 4.0


def test_one_per_tick_without_ticks_is_refused() -> None:
    with pytest.raises(ConfigError, match="clock = 'tick'"):
        Buffered(buffer_size=10, buffer="one_per_tick")


def test_a_scheduler_that_could_never_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Buffered(buffer_size=0)
    with pytest.raises(ConfigError, match="at least 1"):
        Buffered(buffer_size=3, concurrency=0)


def test_what_nobody_is_left_to_complete_is_aggregated_as_a_rest(toys) -> None:
    scheduler = Buffered(buffer_size=10)
    begin(toys, 2, scheduler)
    scheduler.on_update(toys.make_update(0), 1.0)
    assert scheduler.on_lost(0, 2.0) == Decision()
    assert scheduler.on_lost(1, 3.0) == Decision((JobKey(0, 0),), "rest")
    assert scheduler.on_idle(1, 4.0) == Decision(assignments=(Assignment(1),))


def test_a_larger_buffer_than_the_fleet_fills_over_several_jobs(toys) -> None:
    fleet = toys.Fleet(3, lambda client, job: 1.0)
    loop, trace = toys.run(Strategy(Buffered(buffer_size=10), GradientAggregator(Uniform())), fleet, versions=2)
    assert [len(aggregation.updates) for aggregation in trace.aggregations] == [10, 10]
    assert loop.ended == "versions"


def test_no_more_are_busy_than_the_concurrency_and_the_next_is_drawn_by_the_seed(toys) -> None:
    first = begin(toys, 100, Buffered(buffer_size=10, concurrency=5))
    assert len(set(first)) == 5
    assert first == begin(toys, 100, Buffered(buffer_size=10, concurrency=5))
    assert first != begin(toys, 100, Buffered(buffer_size=10, concurrency=5), seed=1)


def test_the_draw_reaches_every_client(toys) -> None:
    strategy = Strategy(Buffered(buffer_size=10, concurrency=2), GradientAggregator(Uniform()))
    loop, _ = toys.run(strategy, toys.Fleet(12, lambda client, job: 1.0), versions=40)
    assert len(loop.strategy.ledger.aggregated) == 12


def test_a_lost_or_failed_client_is_replaced(toys) -> None:
    scheduler = Buffered(buffer_size=10, concurrency=1)
    busy = begin(toys, 2, scheduler)[0]
    assert scheduler.on_lost(busy, 1.0).assignments == (Assignment(1 - busy),)
    assert scheduler.on_idle(1 - busy, 1.0).assignments == (Assignment(1 - busy),)


def test_an_update_that_is_too_stale_is_rejected_and_its_client_goes_on(toys) -> None:
    scheduler = Buffered(buffer_size=1, max_staleness=1)
    begin(toys, 2, scheduler)
    for job in range(2):
        assert scheduler.on_update(toys.make_update(0, job, job), 1.0 + job).aggregate
    decision = scheduler.on_update(toys.make_update(1), 3.0)
    assert decision.rejected == ((JobKey(1, 0), "2 versions behind, at most 1 allowed"),)
    assert decision.aggregate == ()
    assert decision.assignments == (Assignment(1),)
