"""DeFedAvg's pool."""

from __future__ import annotations

from collections import Counter

from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.schedulers import Pooled
from strategies.weightings import Uniform


def make(toys, size: int, waiting: int, seed: int) -> Pooled:
    """A scheduler in whose pool so many updates wait for the instant to be over."""
    scheduler = Pooled(buffer_size=size)
    scheduler.prepare(toys.start_model(), seed)
    scheduler.begin(range(waiting), 0.0)
    for client in range(waiting):
        assert scheduler.on_update(toys.make_update(client), 1.0).aggregate == ()
    return scheduler


def test_each_waiting_update_is_drawn_equally_often(toys) -> None:
    drawn: Counter[int] = Counter()
    for seed in range(2000):
        keys = make(toys, 2, 5, seed).on_deadline(1.0).aggregate
        assert len(set(keys)) == 2
        drawn.update(key.client for key in keys)
    # 800 expected for each, with a standard deviation of 22: within five of them.
    assert all(690 < drawn[client] < 910 for client in range(5))


def test_what_is_not_drawn_stays_and_is_drawn_in_the_end(toys) -> None:
    scheduler = make(toys, 2, 6, 0)
    drawn = [scheduler.on_deadline(1.0 + tick).aggregate for tick in range(3)]
    assert sorted(key.client for keys in drawn for key in keys) == list(range(6))
    assert scheduler.on_deadline(4.0).aggregate == ()


def test_the_server_steps_at_most_once_a_tick(toys) -> None:
    strategy = Strategy(Pooled(buffer_size=2, tick=3.0), GradientAggregator(Uniform()))
    _, trace = toys.run(strategy, toys.Fleet(8, lambda client, job: 2.0), versions=12)
    times = [aggregation.time for aggregation in trace.aggregations]
    assert len(set(times)) == len(times)
