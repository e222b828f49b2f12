"""A server step that would make the model not finite: it is never taken, and what was there before it stays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from fedmtl.errors import DivergedError
from fedmtl.protocol import Arrival, Update
from fedmtl.toy import toy_model, toy_update
from strategies.aggregators import GradientAggregator
from strategies.core.fleet import ToyFleet
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.core.update_checks import is_finite
from strategies.schedulers import Buffered


class Lapsing(Weighting):
    """Equal weights, and from a version on none that are numbers."""

    def __init__(self, version: int) -> None:
        self.version = version

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        return tuple(math.nan if version >= self.version else 1 / len(updates) for _ in updates)


class Ends(Observer):
    """Counts the ends that it is told of, and the server steps."""

    def __init__(self) -> None:
        self.ends, self.steps = 0, 0

    def on_end(self, loop: Loop) -> None:
        self.ends += 1

    def on_aggregation(self, loop: Loop, aggregation: object) -> None:
        self.steps += 1


def lapsing(version: int) -> Strategy:
    strategy = Strategy(Buffered(buffer_size=2), GradientAggregator(Lapsing(version)), name="lapsing")
    strategy.initialise(toy_model([8.0, 8.0]))
    return strategy


def test_the_step_is_refused_by_the_name_of_its_part_with_the_remedy() -> None:
    strategy = lapsing(0)
    strategy.orders(strategy.begin([0, 1], now=0.0).decision.assignments)
    strategy.on_event(Arrival(1.0, toy_update(0, [1.0, 1.0])))
    decision = strategy.on_event(Arrival(2.0, toy_update(1, [1.0, 1.0]))).decision
    with pytest.raises(DivergedError, match=r"'lapsing'.*aggregator GradientAggregator with Lapsing.*client 0.*nan"):
        strategy.aggregate(decision, now=2.0)
    assert strategy.model.version == 0
    assert strategy.model.vector.tolist() == [8.0, 8.0]
    assert [update.client for update in strategy.unsettled()] == [0, 1]


def test_a_run_ends_there_with_the_last_model_that_is_sound() -> None:
    strategy, ends = lapsing(3), Ends()
    loop = Loop(strategy, ToyFleet({0: 1.0, 1: 2.5}, train=lambda order: -0.5 * order.base.vector), [ends])
    loop.run(lambda loop: "never" if loop.strategy.model.version > 9 else None)
    assert loop.diverged is not None
    assert (loop.diverged.version, loop.ended) == (4, str(loop.diverged))
    assert "lower training.learning_rate" in loop.ended
    assert (ends.steps, ends.ends) == (3, 1)
    assert strategy.model.version == 3
    assert is_finite(strategy.model.vector)
    assert not loop.interrupted
    assert loop.arrivals == 3 * 2 + len(strategy.unsettled())


def test_every_entry_counts_and_a_sum_that_overflows_is_no_fault() -> None:
    large = torch.full((1000,), 3e38)
    assert not math.isfinite(large.sum().item())
    assert is_finite(large)
    for value in (math.nan, math.inf, -math.inf):
        for place in (0, 499, 999):
            vector = torch.linspace(-1, 1, 1000)
            vector[place] = value
            assert not is_finite(vector)
    assert not is_finite(torch.tensor([math.inf, -math.inf]))
    assert is_finite(torch.zeros(0))
