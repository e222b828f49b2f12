"""Heads are averaged where updates are added."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators import (
    CalibratedAggregator,
    GradientAggregator,
    HeadModels,
    LoneReports,
    ModelAggregator,
    Optimized,
)
from strategies.aggregators.dual import DualAveraged
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Aggregator, Step
from strategies.core.ledger import Ledger
from strategies.core.part import prepare
from strategies.core.strategy import Strategy
from strategies.policies.dual_corrected import DualCorrected
from strategies.schedulers import Buffered, Synchronous
from strategies.task_weights import FedNTKTrace
from strategies.weightings import DataSize, Uniform

VERSION = 5
TASKS = st.sampled_from([(0,), (1,), (0, 1)])


def make_step(toys, updates: Sequence[Update]) -> Step:
    ledger = Ledger()
    ledger.met(range(4))
    model = GlobalModel(VERSION, toys.start_model().vector, toys.LAYOUT)
    bases = {v: torch.full((9,), 0.1 * v) for v in range(VERSION)} | {VERSION: model.vector}
    return Step(model, updates, bases, "full", frozenset(), ledger)


@given(st.lists(st.tuples(st.integers(0, VERSION), TASKS), min_size=1, max_size=6))
def test_heads_are_those_of_model_aggregation_and_the_rest_that_of_the_base(toys, kinds) -> None:
    updates = [toys.make_update(c, version=v, tasks=tasks) for c, (v, tasks) in enumerate(kinds)]
    step = make_step(toys, updates)
    found, weights = HeadModels(GradientAggregator(DataSize())).aggregate(step)
    added, expected = GradientAggregator(DataSize()).aggregate(step)
    averaged, _ = ModelAggregator(DataSize()).aggregate(step)
    assert weights == expected
    for part in (toys.LAYOUT.shared, toys.LAYOUT.buffers):
        assert torch.equal(found[part], added[part])
    for task, head in enumerate(toys.LAYOUT.heads):
        # Both add the same float32 terms of size 1, in another order.
        torch.testing.assert_close(found[head], averaged[head], rtol=0, atol=2e-6)
        if not any(task in tasks for _, tasks in kinds):
            assert torch.equal(found[head], step.model.vector[head])


def test_without_staleness_it_is_the_base_to_the_bit(toys) -> None:
    step = make_step(toys, [toys.make_update(c, version=VERSION) for c in range(4)])
    for base in (GradientAggregator(DataSize()), Optimized(GradientAggregator(Uniform()), SGD())):
        prepare([base], step.model, 0)
        found, _ = HeadModels(base).aggregate(step)
        assert torch.equal(found, base.aggregate(step)[0])


def test_updates_stay_as_they_came(toys) -> None:
    updates = [toys.make_update(c, version=1) for c in range(3)]
    before = [update.delta.clone() for update in updates]
    HeadModels(GradientAggregator(Uniform())).aggregate(make_step(toys, updates))
    assert all(torch.equal(update.delta, delta) for update, delta in zip(updates, before, strict=True))


def driven(toys, aggregator: Aggregator, delay: int, versions: int = 60) -> list[float]:
    """How far heads are from where clients put them, version by version; every update is `delay` versions old."""
    goal = torch.ones(9)
    history = [torch.zeros(9)]
    distances = []
    for version in range(versions):
        base_version = max(0, version - delay)
        update = toys.make_update(0, version, base_version, delta=goal - history[base_version])
        model = GlobalModel(version, history[-1], toys.LAYOUT)
        step = Step(model, [update], dict(enumerate(history)), "full", frozenset(), Ledger())
        history.append(aggregator.aggregate(step)[0])
        distances.append(float((history[-1] - goal)[toys.LAYOUT.heads[0]].abs().max()))
    return distances


@pytest.mark.parametrize("delay", [1, 2, 4, 8])
def test_added_jumps_overshoot_beyond_the_bound_of_the_docstring_and_averaged_ones_do_not(toys, delay: int) -> None:
    bound = 2 * math.sin(math.pi / (4 * delay + 2))
    below, above = (GradientAggregator(Uniform(), bound * factor) for factor in (0.7, 1.3))
    assert driven(toys, below, delay, versions=600)[-1] < 1e-3
    assert driven(toys, above, delay, versions=600)[-1] > 10.0
    for rate in (bound * 0.7, min(bound * 1.3, 1.0), 1.0):
        averaged = driven(toys, HeadModels(GradientAggregator(Uniform(), rate)), delay, versions=600)
        assert averaged[-1] < 1e-3
        # Each is a mean of where it was and where it goes; rounding moves it by some 1e-7.
        assert all(after <= before + 1e-6 for before, after in itertools.pairwise(averaged))


def test_fedntk_trace_leaves_alone_what_averages_models(toys) -> None:
    adds, averages = GradientAggregator(Uniform()), ModelAggregator(Uniform())
    for aggregator, wrapped in [
        (adds, True),
        (Optimized(adds, SGD()), True),
        (LoneReports(adds, Optimized(adds, SGD())), True),
        (averages, False),
        (Optimized(averages, SGD()), False),
        (LoneReports(averages, adds), False),
    ]:
        found, _ = FedNTKTrace().adjust(aggregator, None)  # type: ignore[arg-type]
        assert isinstance(found, HeadModels) == wrapped
        assert FedNTKTrace(head_aggregation="strategy").adjust(aggregator, None)[0] is aggregator  # type: ignore[arg-type]


def test_an_aggregator_that_counts_on_exact_updates_needs_fresh_ones(toys) -> None:
    def strategy(scheduler) -> Strategy:
        return Strategy(scheduler, DualAveraged(Uniform()), DualCorrected(), FedNTKTrace())

    with pytest.raises(ConfigError, match=r"DualAveraged counts on updates .* balancing.head_aggregation = 'strategy'"):
        strategy(Buffered(buffer_size=2))
    strategy(Synchronous(clients_per_round=2))


def test_an_aggregator_that_adds_updates_again_is_refused() -> None:
    for aggregator in (CalibratedAggregator(Uniform()), Optimized(CalibratedAggregator(Uniform()), SGD())):
        with pytest.raises(ConfigError, match=r"CA2FL.*head_aggregation = 'strategy'"):
            Strategy(Buffered(buffer_size=2), aggregator, None, FedNTKTrace())
        Strategy(Buffered(buffer_size=2), aggregator, None, FedNTKTrace(head_aggregation="strategy"))
