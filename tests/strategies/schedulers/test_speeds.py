"""Predicting how long a client takes from what it took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import TrainSettings
from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.schedulers import Synchronous
from strategies.schedulers.compass import Compass
from strategies.schedulers.queued import Queued
from strategies.schedulers.speeds import Affine, MovingAverage
from strategies.weightings import Uniform

positive = st.floats(0.01, 100.0)
lengths = st.lists(st.integers(1, 200), min_size=1, max_size=12)
both = pytest.mark.parametrize("make", [lambda: MovingAverage(0.9), Affine])


def test_the_moving_average_of_its_golden_case() -> None:
    model = MovingAverage(0.9)
    model.observe(3, 12.0, 100)
    assert model.seconds(3, 1) == 0.12
    model.observe(3, 11.0, 66)
    assert model.seconds(3, 1) == pytest.approx(0.162)


@both
@given(pace=positive, lengths=lengths)
def test_a_constant_step_time_is_known_after_one_report_and_stays(make, pace: float, lengths: list[int]) -> None:
    model = make()
    assert not model.knows(0)
    for steps in lengths:
        model.observe(0, pace * steps, steps)
        assert model.knows(0)
        assert model.seconds(0, 50) == pytest.approx(50 * pace, rel=1e-6)


@given(fixed=positive, pace=positive, lengths=lengths.filter(lambda steps: len(set(steps)) > 1))
def test_a_fixed_cost_is_found_once_lengths_differ_and_kept_afterwards(
    fixed: float, pace: float, lengths: list[int]
) -> None:
    model = Affine()
    for steps in (1, 200, *lengths, *[lengths[-1]] * 40):  # so long that all other lengths are forgotten
        model.observe(0, fixed + pace * steps, steps)
    assert model.cost(0) == pytest.approx((fixed, pace), rel=1e-3)


def test_an_average_predicts_short_jobs_too_short_where_there_is_a_fixed_cost() -> None:
    average, affine = MovingAverage(0.9), Affine()
    for steps in (100, 50):
        for model in (average, affine):
            model.observe(0, 5.0 + 0.1 * steps, steps)
    assert affine.seconds(0, 20) == pytest.approx(7.0)
    assert average.seconds(0, 20) < 5.0


@pytest.mark.parametrize("reports", [[(10.0, 10), (5.0, 20)], [(1.0, 10), (20.0, 20)]], ids=["falling", "below zero"])
def test_a_fit_without_sense_falls_back_to_seconds_per_step(reports: list[tuple[float, int]]) -> None:
    model = Affine()
    for seconds, steps in reports:
        model.observe(0, seconds, steps)
    fixed, pace = model.cost(0)
    assert fixed == 0.0
    assert pace > 0.0


@both
@given(pace=positive, steps=st.integers(1, 10_000))
def test_steps_are_the_inverse_of_seconds(make, pace: float, steps: int) -> None:
    """At exact multiples, too, where a quotient may be rounded to just below the whole number."""
    model = make()
    model.observe(0, 40 * pace, 40)
    assert model.steps(0, model.seconds(0, steps)) == steps


@both
def test_a_report_at_the_instant_of_its_order_leaves_finite_numbers(make) -> None:
    model = make()
    model.observe(0, 0.0, 3)
    assert model.steps(0, 1.0) > 1_000_000
    assert model.seconds(0, 100) > 0.0


@both
@given(reports=st.lists(st.tuples(positive, st.integers(1, 50)), min_size=1, max_size=6))
def test_the_state_is_all_that_counts(toys, make, reports: list[tuple[float, int]]) -> None:
    model, copy = make(), make()
    for seconds, steps in reports:
        model.observe(1, seconds, steps)
    copy.load_state_dict(toys.through_json(model.state_dict()))
    assert copy.cost(1) == model.cost(1)
    model.observe(1, 3.0, 7)
    copy.observe(1, 3.0, 7)
    assert copy.state_dict() == model.state_dict()


@pytest.mark.parametrize(
    "scheduler",
    [Compass(), Queued(), Synchronous(step_budget=1.0)],
    ids=["compass", "queued", "synchronous, with a budget"],
)
def test_clients_that_may_train_no_step_show_no_speed_and_are_refused(scheduler) -> None:
    strategy = Strategy(scheduler, GradientAggregator(Uniform()))
    with pytest.raises(ConfigError, match="seconds per step are learned from every job"):
        strategy.train_with(TrainSettings(tiny_clients="ref_drop_last"))
