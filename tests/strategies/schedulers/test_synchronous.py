from __future__ import annotations

import torch

from fedmtl.protocol import NOTHING, Assignment, Decision, JobKey
from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.schedulers import Asynchronous, Synchronous
from strategies.weightings import Uniform


def begin(toys, clients: int, scheduler: Synchronous | Asynchronous) -> list[int]:
    scheduler.prepare(toys.start_model(), 0)
    return [assignment.client for assignment in scheduler.begin(range(clients), 0.0).assignments]


def test_a_round_ends_when_all_have_answered_and_is_aggregated_in_the_order_of_choice(toys) -> None:
    scheduler = Synchronous()
    assert begin(toys, 3, scheduler) == [0, 1, 2]
    assert scheduler.on_update(toys.make_update(2), 1.0) is NOTHING
    assert scheduler.on_update(toys.make_update(0), 2.0) is NOTHING
    decision = scheduler.on_update(toys.make_update(1), 3.0)
    assert decision.aggregate == (JobKey(0, 0), JobKey(1, 0), JobKey(2, 0))
    assert decision.trigger == "all"
    assert decision.assignments == (Assignment(0), Assignment(1), Assignment(2))


def test_a_lost_or_rejected_member_does_not_hold_up_the_round(toys) -> None:
    scheduler = Synchronous()
    begin(toys, 3, scheduler)
    scheduler.on_update(toys.make_update(1), 1.0)
    assert scheduler.on_lost(0, 2.0) is NOTHING
    decision = scheduler.on_idle(2, 3.0)
    assert decision.aggregate == (JobKey(1, 0),)
    assert {assignment.client for assignment in decision.assignments} == {1, 2}


def test_who_joins_during_a_round_is_in_the_next(toys) -> None:
    scheduler = Synchronous()
    begin(toys, 2, scheduler)
    assert scheduler.on_idle(9, 1.0) is NOTHING
    assert scheduler.on_lost(0, 1.0) is NOTHING
    assert scheduler.on_idle(0, 1.5) is NOTHING
    decision = scheduler.on_update(toys.make_update(1), 2.0)
    assert {assignment.client for assignment in decision.assignments} == {0, 1, 9}


def test_what_a_member_delivered_before_it_was_lost_counts(toys) -> None:
    scheduler = Synchronous()
    begin(toys, 2, scheduler)
    scheduler.on_update(toys.make_update(0), 1.0)
    scheduler.on_lost(0, 2.0)
    decision = scheduler.on_update(toys.make_update(1), 3.0)
    assert decision.aggregate == (JobKey(0, 0), JobKey(1, 0))
    assert decision.assignments == (Assignment(1),)


def test_a_round_without_answers_takes_no_step(toys) -> None:
    scheduler = Synchronous()
    begin(toys, 2, scheduler)
    scheduler.on_lost(0, 1.0)
    assert scheduler.on_lost(1, 1.0) == Decision()
    assert scheduler.on_idle(1, 5.0) == Decision(assignments=(Assignment(1),))


def test_the_model_does_not_depend_on_the_speeds(toys) -> None:
    def run(speed) -> torch.Tensor:
        strategy = Strategy(Synchronous(clients_per_round=4), GradientAggregator(Uniform()))
        toys.run(strategy, toys.Fleet(9, speed), versions=12)
        return strategy.model.vector

    assert torch.equal(run(lambda client, job: 1.0), run(lambda client, job: 10.0 - client + job % 3))


def test_a_fully_asynchronous_server_steps_at_every_arrival(toys) -> None:
    scheduler = Asynchronous()
    begin(toys, 2, scheduler)
    decision = scheduler.on_update(toys.make_update(1), 1.0)
    assert decision == Decision((JobKey(1, 0),), "single", assignments=(Assignment(1),))
    assert scheduler.on_idle(0, 1.0) == Decision(assignments=(Assignment(0),))
    assert scheduler.on_lost(0, 1.0) == Decision()
