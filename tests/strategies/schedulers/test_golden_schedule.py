"""The scheduler figures of FedQS's default setting, 400 aggregations of K = 10 over N = 100 clients of speeds 1:50.

In the sweep over ticks a client of speed r loads a model in one tick, uploads r ticks later, and loads the next model
in the tick after that, which is the model at the end of the upload's tick. So an order given at the end of one tick
is answered r + 1 ticks later, and with the start at time 0 tick number n ends at time n.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter

import pytest

from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.schedulers import Buffered
from strategies.weightings import Uniform

HISTOGRAM = """
1x4 2x2 3x5 4x4 5x2 6x2 7x3 8x2 10x7 11x2 12x1 13x2 14x1 15x3 16x1 17x2 18x1 20x1 21x1 22x1 23x2 24x2 25x1 26x5 27x4
28x3 29x2 30x2 31x2 32x1 33x2 35x1 36x2 37x1 38x2 39x1 40x2 41x1 42x2 43x1 44x2 45x1 46x2 47x2 48x2 49x2 50x3
"""
SPEEDS = [int(r) for entry in HISTOGRAM.split() for r, count in [entry.split("x")] for _ in range(int(count))]


def run(toys, buffer: str, speeds: list[int]):
    strategy = Strategy(Buffered(buffer_size=10, buffer=buffer, clock="tick"), GradientAggregator(Uniform()))
    fleet = toys.Fleet(len(speeds), lambda client, job: speeds[client] + 1)
    loop, trace = toys.run(strategy, fleet, versions=400)
    staleness = [tau for aggregation in trace.aggregations for tau in aggregation.staleness]
    return fleet.now(), staleness, loop.strategy.ledger.aggregated


def test_the_speeds_are_those_of_the_setting() -> None:
    assert len(SPEEDS) == 100
    assert statistics.mean(SPEEDS) == pytest.approx(23.07)
    assert sum(1 / (r + 1) for r in SPEEDS) == pytest.approx(9.10, abs=0.005)


def in_order(order: str) -> list[int]:
    if order == "shuffled":
        speeds = list(SPEEDS)
        random.Random(1).shuffle(speeds)
        return speeds
    return sorted(SPEEDS, reverse=order == "descending")


@pytest.mark.slow
@pytest.mark.parametrize(("buffer", "ticks", "mean"), [("one_per_tick", 446, 9.788), ("drain", 445, 8.8745)])
@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_ticks_staleness_and_participation_come_out_exactly_in_any_order(
    toys, buffer: str, ticks: int, mean: float, order: str
) -> None:
    speeds = in_order(order)
    time, staleness, counts = run(toys, buffer, speeds)
    assert time == ticks
    assert len(staleness) == 4000
    assert statistics.mean(staleness) == mean
    assert min(staleness) >= 0
    assert buffer == "drain" or max(staleness) in (47, 48)  # depends on the order of the clients

    descending = sorted(counts.values(), reverse=True)
    assert sum(descending) == 4000
    assert len(descending) == 100
    assert Counter(descending[:11]) == {222: 4, 148: 2, 111: 5}
    assert descending[11] == 89
    assert statistics.median(descending) == 17
    assert descending[-1] == 8
    fastest = sum(counts[client] for client, r in enumerate(speeds) if r == 1)
    assert fastest / 4000 == pytest.approx(0.22, abs=0.005)
