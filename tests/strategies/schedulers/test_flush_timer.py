"""A buffer whose patience ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.randomness import derive_seed
from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy
from strategies.schedulers import Buffered
from strategies.weightings import Uniform


def make_strategy(size: int = 4, **options) -> Strategy:
    return Strategy(Buffered(buffer_size=size, **options), GradientAggregator(Uniform()))


def make_fleet(toys, clients: int, seed: int, *, losses: int = 0):
    def duration(client: int, job: int) -> float:
        return 1.0 + derive_seed(seed, "duration", client, job) % 8

    def outage(client: int, job: int) -> tuple[float, float] | None:
        return (0.5, 3.0) if derive_seed(seed, "lost", client, job) % 1000 < losses else None

    return toys.Fleet(clients, duration, toys.Quirks(outage))


def arrivals_of(trace) -> dict:
    return {update.key: update.arrived_at for update in trace.received}


@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(1, 9),
    seed=st.integers(0, 2**32),
    patience=st.sampled_from([0.5, 1.0, 3.0]),
    losses=st.sampled_from([0, 200]),
    clock=st.sampled_from(["event", "tick"]),
    most=st.sampled_from([None, 7]),
)
def test_nothing_waits_longer_than_the_patience_and_nothing_is_flushed_before(
    toys, clients: int, seed: int, patience: float, losses: int, clock: str, most: int | None
) -> None:
    strategy = make_strategy(4, flush_seconds=patience, clock=clock, max_buffer=most)
    _, trace = toys.run(strategy, make_fleet(toys, clients, seed, losses=losses), events=150)
    arrived = arrivals_of(trace)
    assert trace.aggregations
    for step in trace.aggregations:
        waited = [step.time - arrived[update.key] for update in step.updates]
        assert max(waited) <= patience
        if step.trigger == "deadline":
            assert max(waited) == waited[0] == patience
            assert len(step.updates) < (most or 4)


def test_an_update_of_the_very_instant_is_on_time(toys) -> None:
    """Client 0 arrives at 1, the others at 3, when its patience ends; all go in, and the next orders come after."""
    fleet = toys.Fleet(3, lambda client, job: 1.0 if (client, job) == (0, 0) else 3.0 if job == 0 else 50.0)
    _, trace = toys.run(make_strategy(9, flush_seconds=2.0), fleet, versions=1)
    (step,) = trace.aggregations
    assert (step.time, step.trigger) == (3.0, "deadline")
    assert [update.client for update in step.updates] == [0, 1, 2]
    assert fleet.pending.keys() == {(0, 1), (1, 1), (2, 1)}
    assert {order.base.version for order, _, sent in fleet.pending.values() if sent == 3.0} == {1}


def test_the_patience_is_that_of_the_first_who_waits(toys) -> None:
    """A full buffer ends the wait of those in it; the next one's begins when it arrives."""
    scheduler = Buffered(buffer_size=2, flush_seconds=5.0)
    scheduler.prepare(toys.start_model(), 0)
    scheduler.begin(range(3), 0.0)
    assert scheduler.next_deadline() is None
    scheduler.on_update(toys.make_update(0), 1.0)
    assert scheduler.next_deadline() == 6.0
    assert scheduler.on_update(toys.make_update(1), 2.0).trigger == "full"
    assert scheduler.next_deadline() is None
    scheduler.on_update(toys.make_update(2), 4.0)
    assert scheduler.next_deadline() == 9.0
    decision = scheduler.on_deadline(9.0)
    assert (decision.trigger, [key.client for key in decision.aggregate]) == ("deadline", [2])
    assert scheduler.next_deadline() is None


def test_a_rare_task_is_waited_for_no_longer_than_the_patience(toys) -> None:
    quirks = toys.Quirks(tasks=lambda client: (1,) if client == 0 else (0,))
    fleet = toys.Fleet(3, lambda client, job: 30.0 if client == 0 else 2.0, quirks)
    _, trace = toys.run(make_strategy(2, max_buffer=50, flush_seconds=5.0), fleet, versions=4)
    assert [(step.trigger, step.time, len(step.updates)) for step in trace.aggregations] == [
        ("deadline", 7.0, 6),
        ("deadline", 13.0, 6),
        ("deadline", 19.0, 6),
        ("deadline", 25.0, 6),
    ]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), clock=st.sampled_from(["event", "tick"]))
def test_where_it_never_ends_the_patience_changes_no_bit(toys, seed: int, clock: str) -> None:
    (_, plain), (_, patient) = (
        toys.run(
            make_strategy(4, clock=clock, flush_seconds=patience), make_fleet(toys, 9, seed, losses=100), events=120
        )
        for patience in (None, 1e9)
    )
    assert [step.trigger for step in plain.aggregations] == [step.trigger for step in patient.aggregations]
    assert all(one.equal(other) for one, other in zip(plain.vectors, patient.vectors, strict=True))


def test_a_state_without_waiting_times_is_refused(toys) -> None:
    """States that were saved before there was patience are of a format that is not read any more."""
    old = Buffered(buffer_size=4)
    old.prepare(toys.start_model(), 0)
    old.begin(range(3), 0.0)
    old.on_update(toys.make_update(0), 1.0)
    state = {key: value for key, value in old.state_dict().items() if key != "since"}
    new = Buffered(buffer_size=4)
    with pytest.raises(KeyError, match="since"):
        new.load_state_dict(state)


@pytest.mark.parametrize("patience", [0.0, -1.0, float("nan")])
def test_a_patience_that_is_no_time_is_refused(patience: float) -> None:
    with pytest.raises(ConfigError, match="the limit must be positive"):
        Buffered(buffer_size=4, flush_seconds=patience)


@pytest.mark.parametrize("name", ["fedbuff", "fedsgd", "fedavg-safl", "fedqs"])
def test_every_strategy_with_a_buffer_of_this_kind_has_the_option(name: str) -> None:
    scheduler = build_strategy(name, {"flush_seconds": 2.5}, None).scheduler
    assert scheduler.state_dict()["since"] == []
    assert vars(scheduler)["_patience"] == 2.5


def test_a_free_composition_has_it_too() -> None:
    strategy = build_strategy("custom", {"scheduler": {"name": "buffered", "flush_seconds": 2.5}}, None)
    assert vars(strategy.scheduler)["_patience"] == 2.5
