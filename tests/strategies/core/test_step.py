"""The mean of clients' statistics: within their range, whatever the weights and however stale."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.randomness import torch_generator
from fedmtl.toy import toy_model, toy_update
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.robust import robust
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Aggregator, Step
from strategies.core.part import prepare
from strategies.core.strategy import Strategy
from strategies.schedulers import Buffered
from strategies.weightings import Uniform


def made(values: list[float], bases: list[float], now: float) -> Step:
    """A step of clients that started at these statistics, of the versions 0, 1, ..., and ended at those."""
    earlier = [toy_model([0.0, base], version=version, buffers=1) for version, base in enumerate(bases)]
    model = toy_model([0.0, now], version=len(bases), buffers=1)
    updates = [
        toy_update(client, [1.0, value - base], base_version=client)
        for client, (value, base) in enumerate(zip(values, bases, strict=True))
    ]
    return Step.of(model, updates, earlier=earlier)


sizes = st.floats(0.0, 1e4, width=32)


@given(
    entries=st.lists(st.tuples(sizes, sizes, st.floats(-1.0, 4.0)), min_size=1, max_size=6),
    now=sizes,
)
def test_the_mean_lies_within_the_values_that_have_a_weight(entries: list, now: float) -> None:
    values, bases, weights = (list(column) for column in zip(*entries, strict=True))
    step = made(values, bases, now)
    (mean,) = step.mean_statistics(weights).tolist()
    sent = [float(value) for value in step.sent_statistics().flatten()]
    counted = [value for value, weight in zip(sent, weights, strict=True) if weight > 0.0]
    if math.fsum(max(weight, 0.0) for weight in weights) < 1.0 - 1e-9:
        counted.append(now)
    assert min(counted) <= mean <= max(counted)
    assert mean >= 0.0


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((0.5, 0.5), 4.0),
        ((0.25, 0.25), 2.5),  # half of it is the server's
        ((2.0, 2.0), 4.0),
        ((1.0, 3.0), 3.5),
        ((0.0, 0.0), 1.0),
        ((-1.0, 1.0), 3.0),
    ],
)
def test_weights_and_what_they_leave_of_one_to_the_server_sum_to_one(weights: tuple, expected: float) -> None:
    step = made([5.0, 3.0], [9.0, 2.0], now=1.0)
    assert step.mean_statistics(weights).item() == pytest.approx(expected)


def test_what_no_client_changes_stays_as_it_is_to_the_bit() -> None:
    constant = torch.rand(1, generator=torch_generator(0, "constant")).item()
    step = made([constant] * 3, [constant] * 3, now=constant)
    assert step.mean_statistics((1 / 3,) * 3).item() == torch.tensor(constant).item()


AGGREGATORS = {
    "long steps": lambda: GradientAggregator(Uniform(), server_rate=7.0),
    "momentum": lambda: Optimized(GradientAggregator(Uniform()), SGD(rate=3.0, momentum=0.9)),
    "clipping": lambda: robust(Uniform(), rule="dp-clip", clipping_norm=0.1),
}


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_strategys_step_averages_statistics_whatever_its_aggregator_does(name: str) -> None:
    aggregator: Aggregator = AGGREGATORS[name]()
    strategy = Strategy(Buffered(buffer_size=2), aggregator)
    strategy.initialise(toy_model([0.0, 1.0], buffers=1))
    prepare([aggregator], strategy.model, seed=0)
    step = made([5.0, 3.0], [9.0, 2.0], now=1.0)
    vector, weights = aggregator.aggregate(step)
    strategy._set_statistics(step, vector, weights)
    assert vector[1].item() == pytest.approx(4.0)


@pytest.mark.parametrize(("rule", "expected"), [("median", 3.0), ("trimmed-mean", 3.0), ("krum", 3.0)])
def test_a_robust_rule_chooses_among_the_values_and_not_the_changes(rule: str, expected: float) -> None:
    """One of five lies; the others came from afar to about 3."""
    step = made([3.0, 3.0, 3.0, 3.0, 1000.0], [9.0, 2.0, 8.0, 1.0, 1.0], now=1.0)
    aggregator = robust(Uniform(), rule=rule, malicious=1)
    vector, weights = aggregator.aggregate(step)
    assert aggregator.statistics(step, vector[1:], weights).item() == pytest.approx(expected)
