"""FedQueue's rounds: budgets, admission, and late updates."""

from __future__ import annotations

import pytest

from fedmtl.errors import ConfigError
from fedmtl.protocol import Decision
from strategies.schedulers import Queued


def make(toys, clients: int, **options) -> Queued:
    scheduler = Queued(**options)
    scheduler.prepare(toys.start_model(), 0)
    assert [a.steps for a in scheduler.begin(range(clients), 0.0).assignments] == [20] * clients
    return scheduler


def deliver(scheduler: Queued, toys, client: int, job: int, seconds: float, steps: int, now: float) -> Decision:
    update = toys.make_update(client, job, steps=steps, dispatched_at=now - seconds, arrived_at=now)
    return scheduler.on_update(update, now)


def test_a_budget_is_what_wait_and_safety_leave_of_a_round(toys) -> None:
    """5 s of wait and 0.25 s a step, told apart once the jobs' lengths differ."""
    scheduler = make(toys, 1, round_seconds=20.0, safety=1.0, smoothing=1.0)
    steps = 20
    for job in range(6):
        (assignment,) = deliver(scheduler, toys, 0, job, 5.0 + 0.25 * steps, steps, 100.0 * job).assignments
        assert assignment.steps is not None
        steps = assignment.steps
    assert steps == pytest.approx((20.0 - 5.0 - 1.0) / 0.25, abs=1)


def test_a_budget_of_nothing_gives_one_step_and_a_huge_one_a_finite_number(toys) -> None:
    scheduler = make(toys, 1, round_seconds=2.0, safety=5.0)
    assert deliver(scheduler, toys, 0, 0, 40.0, 20, 40.0).assignments[0].steps == 1
    scheduler = make(toys, 1, round_seconds=1e9, max_steps=300)
    assert deliver(scheduler, toys, 0, 0, 0.0, 20, 0.0).assignments[0].steps == 300


def test_who_waited_too_long_goes_into_the_next_round_once(toys) -> None:
    scheduler = make(toys, 2, round_seconds=10.0, smoothing=0.5)
    # Steps of 0.1 s; then client 1 waits 8 s where it never had: more than 0.2 rounds.
    deliver(scheduler, toys, 0, 0, 2.0, 20, 2.0)
    first = deliver(scheduler, toys, 1, 0, 2.0, 20, 2.0)
    steps = {assignment.client: assignment.steps for assignment in first.assignments}
    assert len(first.aggregate) == 2
    assert not first.late
    deliver(scheduler, toys, 1, 1, 60.0, steps[1] // 2, 80.0)
    second = deliver(scheduler, toys, 0, 1, 0.1 * steps[0], steps[0], 80.0)
    assert [key.client for key in second.aggregate] == [0]
    third = scheduler.on_deadline(95.0)
    assert [key.client for key in third.aggregate] == [1]
    assert third.late == frozenset(third.aggregate)
    assert scheduler.on_deadline(110.0).aggregate == ()


def test_late_updates_go_in_at_once_if_there_is_nothing_else(toys) -> None:
    scheduler = make(toys, 1, round_seconds=10.0)
    deliver(scheduler, toys, 0, 0, 2.0, 20, 2.0)
    decision = deliver(scheduler, toys, 0, 1, 60.0, 5, 62.0)
    assert [key.job for key in decision.aggregate] == [1]
    assert decision.late == frozenset(decision.aggregate)


def test_the_timer_ends_a_round_and_the_busy_train_on(toys) -> None:
    scheduler = make(toys, 3, round_seconds=10.0)
    assert scheduler.next_deadline() == pytest.approx(11.5)
    deliver(scheduler, toys, 2, 0, 2.0, 20, 2.0)
    decision = scheduler.on_deadline(11.5)
    assert decision.trigger == "deadline"
    assert [assignment.client for assignment in decision.assignments] == [2]
    assert scheduler.next_deadline() == pytest.approx(23.0)


def test_the_fewest_steps_have_the_full_rate(toys) -> None:
    scheduler = make(toys, 2, round_seconds=10.0)
    deliver(scheduler, toys, 0, 0, 2.0, 20, 2.0)
    decision = deliver(scheduler, toys, 1, 0, 8.0, 20, 8.0)
    assert [assignment.steps for assignment in decision.assignments] == [100, 25]
    assert [scheduler.rate_factor(client) for client in range(2)] == [0.25, 1.0]


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_steps = 0"):
        Queued(min_steps=0)
