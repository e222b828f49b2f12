"""Rounds that do not wait for everybody: over-selection, time-outs, partial work, chosen clients."""

from __future__ import annotations

import pytest
import torch

from fedmtl.errors import ConfigError
from fedmtl.protocol import NOTHING, Assignment, JobKey
from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.schedulers import Synchronous
from strategies.schedulers.partial_work import PartialWork
from strategies.selectors import OortSelector
from strategies.weightings import Uniform


def begin(toys, clients: int, scheduler: Synchronous) -> list[int]:
    scheduler.prepare(toys.start_model(), 0)
    return [assignment.client for assignment in scheduler.begin(range(clients), 0.0).assignments]


def clients(decision) -> set[int]:
    return {assignment.client for assignment in decision.assignments}


def test_more_are_asked_than_needed_and_the_slowest_are_late(toys) -> None:
    scheduler = Synchronous(clients_per_round=2, over_commit=1.5)
    first, second, third = begin(toys, 3, scheduler)
    assert scheduler.on_update(toys.make_update(third), 1.0) is NOTHING
    decision = scheduler.on_update(toys.make_update(first), 2.0)
    assert decision.aggregate == (JobKey(first, 0), JobKey(third, 0))  # in the order of choice
    assert decision.trigger == "enough"
    assert clients(decision) == {first, third}  # the second still trains
    late = scheduler.on_update(toys.make_update(second), 3.0)
    assert late.rejected == ((JobKey(second, 0), "late: its round had ended"),)
    assert late.aggregate == ()
    scheduler.on_update(toys.make_update(first, 1, 1), 4.0)
    assert clients(scheduler.on_update(toys.make_update(third, 1, 1), 4.0)) == {0, 1, 2}


def test_eleven_are_asked_for_ten_answers(toys) -> None:
    assert len(begin(toys, 30, Synchronous(clients_per_round=10, over_commit=1.1))) == 11


def test_a_round_ends_in_time_with_the_answers_that_are_there(toys) -> None:
    scheduler = Synchronous(timeout=5.0)
    begin(toys, 3, scheduler)
    assert scheduler.next_deadline() == 5.0
    scheduler.on_update(toys.make_update(1), 1.0)
    decision = scheduler.on_deadline(5.0)
    assert decision.aggregate == (JobKey(1, 0),)
    assert decision.trigger == "deadline"
    assert decision.assignments == (Assignment(1),)
    assert scheduler.next_deadline() == 10.0
    rejected = scheduler.on_update(toys.make_update(0), 6.0).rejected
    assert rejected[0][0] == JobKey(0, 0)
    assert clients(scheduler.on_update(toys.make_update(1, 1, 1), 7.0)) == {0, 1}


def test_late_updates_can_be_kept_for_the_next_round(toys) -> None:
    scheduler = Synchronous(timeout=5.0, late="keep")
    begin(toys, 3, scheduler)
    scheduler.on_update(toys.make_update(1), 1.0)
    scheduler.on_deadline(5.0)
    assert scheduler.on_update(toys.make_update(0), 6.0) is NOTHING
    decision = scheduler.on_update(toys.make_update(1, 1, 1), 7.0)
    assert decision.aggregate == (JobKey(1, 1), JobKey(0, 0))
    assert decision.late == {JobKey(0, 0)}


def test_when_nobody_answers_in_time_the_round_ends_with_the_first_answer(toys) -> None:
    scheduler = Synchronous(timeout=1.0)
    begin(toys, 2, scheduler)
    assert scheduler.on_deadline(1.0) is NOTHING
    assert scheduler.next_deadline() is None
    decision = scheduler.on_update(toys.make_update(1), 3.0)
    assert decision.aggregate == (JobKey(1, 0),)
    assert decision.trigger == "deadline"


def test_a_late_client_that_is_lost_or_fails_is_free_again(toys) -> None:
    scheduler = Synchronous(timeout=5.0)
    begin(toys, 3, scheduler)
    scheduler.on_update(toys.make_update(2), 1.0)
    scheduler.on_deadline(5.0)
    assert scheduler.on_lost(0, 6.0) is NOTHING
    assert scheduler.on_idle(1, 6.0) is NOTHING  # its update was not fit
    assert scheduler.on_idle(0, 7.0) is NOTHING  # it is back
    assert clients(scheduler.on_update(toys.make_update(2, 1, 1), 8.0)) == {0, 1, 2}


def test_a_generous_time_out_changes_no_bit(toys) -> None:
    def run(**options) -> torch.Tensor:
        strategy = Strategy(Synchronous(clients_per_round=4, **options), GradientAggregator(Uniform()))
        toys.run(strategy, toys.Fleet(9, lambda client, job: 10.0 - client), versions=12)
        return strategy.model.vector

    assert torch.equal(run(), run(timeout=1000.0, late="keep"))
    assert not torch.equal(run(), run(timeout=4.0))


def update(toys, client: int, steps: int, seconds: float):
    return toys.make_update(client, steps=steps, dispatched_at=10.0, arrived_at=10.0 + seconds)


def test_a_slow_client_is_given_the_steps_that_fit(toys) -> None:
    budget = PartialWork(6.0)
    assert budget.steps(0) is None  # nothing is known of it
    budget.learn(update(toys, 0, 10, 20.0))
    assert budget.steps(0) == 3
    budget.learn(update(toys, 0, 3, 6.0))
    assert budget.steps(0) == 3
    budget.learn(update(toys, 1, 10, 5.0))
    assert budget.steps(1) is None
    budget.learn(update(toys, 2, 10, 1000.0))
    assert budget.steps(2) == 1


def test_a_jobs_fixed_cost_is_learned_apart(toys) -> None:
    budget = PartialWork(6.0)
    budget.learn(update(toys, 0, 10, 4.0 + 10 * 1.0))
    budget.learn(update(toys, 0, 4, 4.0 + 4 * 1.0))
    assert budget.steps(0) == 2


def test_a_scheduler_learns_from_late_updates_too(toys) -> None:
    scheduler = Synchronous(timeout=6.0, step_budget=6.0)
    begin(toys, 2, scheduler)
    scheduler.on_update(update(toys, 0, 2, 1.0), 1.0)
    scheduler.on_deadline(6.0)
    scheduler.on_update(update(toys, 1, 8, 12.0), 12.0)
    decision = scheduler.on_update(toys.make_update(0, 1, 1, arrived_at=1.0), 12.0)
    assert set(decision.assignments) == {Assignment(0), Assignment(1, 4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over_commit": 1.1}, "set clients_per_round"),
        pytest.param({"selection": OortSelector()}, "set clients_per_round", id="a selector of few"),
        ({"clients_per_round": 3, "over_commit": 0.5}, "over_commit = 0.5"),
        ({"timeout": 0.0}, "timeout = 0.0 seconds: must be positive"),
        ({"step_budget": float("nan")}, "step_budget = nan seconds"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Synchronous(**options)


def test_a_scheduler_says_what_others_can_rely_on() -> None:
    assert Synchronous().provides == {"every-update", "fresh-updates", "distinct-clients"}
    assert Synchronous(timeout=1.0).provides == {"fresh-updates", "distinct-clients"}
    assert Synchronous(timeout=1.0, late="keep").provides == {"every-update", "distinct-clients"}
    assert Synchronous(clients_per_round=3, over_commit=1.1).provides == {"fresh-updates", "distinct-clients"}
