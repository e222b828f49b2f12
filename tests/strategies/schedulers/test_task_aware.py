"""A buffer that waits for every task."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.randomness import derive_seed
from strategies.aggregators import GradientAggregator
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.schedulers import Buffered
from strategies.schedulers.coverage import TaskCoverage
from strategies.weightings import Uniform


def make_strategy(size: int = 4, most: int = 9, **options) -> Strategy:
    return Strategy(Buffered(buffer_size=size, max_buffer=most, **options), GradientAggregator(Uniform()))


def make_fleet(toys, clients: int, seed: int, rare: int, *, losses: int = 0):
    """Clients below `rare` own the second task alone, the others the first alone; a few also own both."""

    def tasks(client: int) -> tuple[int, ...]:
        if derive_seed(seed, "both", client) % 7 == 0:
            return (0, 1)
        return (1,) if client < rare else (0,)

    def duration(client: int, job: int) -> float:
        return 1.0 + derive_seed(seed, "duration", client, job) % 8

    def outage(client: int, job: int) -> tuple[float, float] | None:
        return (0.5, 3.0) if derive_seed(seed, "lost", client, job) % 1000 < losses else None

    return toys.Fleet(clients, duration, toys.Quirks(outage, tasks=tasks))


def test_a_sweep_takes_the_tasks_along_with_its_updates(toys) -> None:
    """Clients 4, 3 and 2 with the first task and 1 with the second arrive at once; 1, 2 and 3 are taken."""
    scheduler = Buffered(buffer_size=1, clock="tick", tick_order="client", max_buffer=3)
    scheduler.prepare(toys.start_model(), 0)
    scheduler.begin(range(5), 0.0)
    for client in (4, 3, 2, 1):
        scheduler.on_update(toys.make_update(client, tasks=(int(client == 1),)), 1.0)
    decision = scheduler.on_deadline(1.0)
    assert ([key.client for key in decision.aggregate], decision.trigger) == ([1, 2, 3], "full")
    scheduler.on_update(toys.make_update(0, tasks=(0,)), 2.0)
    assert scheduler.on_deadline(2.0).aggregate == ()


@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(2, 12),
    seed=st.integers(0, 2**32),
    rare=st.integers(0, 4),
    losses=st.sampled_from([0, 200]),
    clock=st.sampled_from(["event", "tick"]),
)
def test_a_step_has_k_updates_at_least_and_every_task_or_as_many_as_may_be(
    toys, clients: int, seed: int, rare: int, losses: int, clock: str
) -> None:
    fleet = make_fleet(toys, clients, seed, rare, losses=losses)
    _, trace = toys.run(make_strategy(clock=clock), fleet, events=150)
    assert trace.aggregations
    for aggregation in trace.aggregations:
        carried = {task for update in aggregation.updates for task in update.tasks}
        size = len(aggregation.updates)
        if aggregation.trigger == "uncovered":
            assert size == 9
            assert len(carried) == 1
        elif aggregation.trigger == "full":
            assert 4 <= size <= 9
            assert carried == {0, 1} or losses
    applied = [update.key for aggregation in trace.aggregations for update in aggregation.updates]
    assert len(applied) == len(set(applied))


def test_a_single_slow_owner_is_waited_for_and_no_longer_than_the_most(toys) -> None:
    slow = {0: 3.5}
    tasks = toys.Quirks(tasks=lambda client: (1,) if client == 0 else (0,))
    _, trace = toys.run(make_strategy(2, 4), toys.Fleet(3, lambda c, j: slow.get(c, 1.0), tasks), versions=6)
    steps = [(a.trigger, [update.client for update in a.updates]) for a in trace.aggregations]
    assert steps[0] == ("uncovered", [1, 2, 1, 2])
    assert ("full", [1, 2, 0]) in steps
    assert all(0 in clients for trigger, clients in steps if trigger == "full")


def test_a_task_whose_owners_are_gone_is_not_waited_for_until_one_is_back(toys) -> None:
    outage = {(0, 1): (0.5, 20.0)}
    world = toys.Quirks(
        lambda client, job: outage.get((client, job)), tasks=lambda client: (1,) if client == 0 else (0,)
    )
    _, trace = toys.run(make_strategy(2, 6), toys.Fleet(3, lambda c, j: 1.0, world), versions=25)
    away = [a for a in trace.aggregations if 2.0 < a.time < 21.0]
    assert away
    assert {(a.trigger, len(a.updates)) for a in away} == {("full", 2)}
    back = [a for a in trace.aggregations if a.time > 23.0]
    assert back
    assert all({update.client for update in a.updates} >= {0} for a in back)


def test_where_all_own_all_it_is_the_plain_buffer(toys) -> None:
    def run(strategy: Strategy):
        fleet = toys.Fleet(9, lambda client, job: 1.0 + client % 4)
        return toys.run(strategy, fleet, versions=20)[1]

    plain = run(Strategy(Buffered(buffer_size=4), GradientAggregator(Uniform())))
    aware = run(make_strategy(4, 9))
    assert all(one.equal(other) for one, other in zip(plain.vectors, aware.vectors, strict=True))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), moment=st.integers(1, 90), losses=st.sampled_from([0, 200]))
def test_a_run_cut_at_any_event_goes_on_to_the_same_bits(toys, seed: int, moment: int, losses: int) -> None:
    whole, seen = toys.run(make_strategy(), make_fleet(toys, 8, seed, 2, losses=losses), events=100)
    first, _ = toys.run(make_strategy(), make_fleet(toys, 8, seed, 2, losses=losses), events=moment)
    rest = toys.Trace()
    second = Loop(toys.ready(make_strategy()), make_fleet(toys, 8, seed, 2, losses=losses), [rest])
    second.load_state_dict(toys.through_json(first.state_dict()))
    second.run(lambda loop: "events" if len(rest.events) >= len(seen.events) - moment else None)
    assert second.strategy.model.vector.equal(whole.strategy.model.vector)
    assert second.strategy.scheduler.state_dict() == whole.strategy.scheduler.state_dict()


def test_coverage_follows_owners_and_waiting_updates() -> None:
    coverage = TaskCoverage(3)
    assert not coverage.complete(9)
    coverage.add(5, (0, 1), 0)
    assert not coverage.complete(9)  # nobody was met who owns the third task: it may yet come
    coverage.add(6, (2,), 1)
    assert coverage.complete(9)
    assert not coverage.complete(1)
    coverage.take(1)
    assert not coverage.complete(9)
    coverage.leave(5)
    assert coverage.complete(9)
    coverage.enter(5)
    coverage.enter(7)
    assert not coverage.complete(9)


def test_a_most_below_the_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_buffer = 3 is below buffer_size = 4"):
        Buffered(buffer_size=4, max_buffer=3)
