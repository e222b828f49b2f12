"""The strategy: what it turns down, what it keeps, and what it sends."""

from __future__ import annotations

import math

import pytest
import torch

from fedmtl.protocol import Arrival, Joined, Lost, TrainSettings
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.core.kinds import Plain, Reaction
from strategies.core.strategy import Strategy
from strategies.policies import FedQSPolicy, Proximal
from strategies.policies.tasks_apart import TasksApart
from strategies.schedulers import Buffered, Compass
from strategies.task_weights import NTKMTL, NTKMTLSR, Equal, LocalBalancing
from strategies.weightings import FedQSWeights, Uniform


@pytest.fixture
def strategy(toys) -> Strategy:
    """K = 3, clients 0 to 4, all busy with their first job."""
    strategy = toys.ready(Strategy(Buffered(buffer_size=3), GradientAggregator(Uniform())))
    strategy.orders(strategy.begin(range(5), 0.0).decision.assignments)
    return strategy


def arrive(strategy: Strategy, update) -> Reaction:
    reaction = strategy.on_event(Arrival(1.0, update))
    if reaction.decision.aggregate:
        strategy.aggregate(reaction.decision, 1.0)
    strategy.orders(reaction.decision.assignments)
    return reaction


def reasons(reaction: Reaction) -> list[str]:
    return [rejection.reason for rejection in reaction.rejections]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"delta": torch.zeros(8)}, "delta is torch.float32 of shape (8,), expected torch.float32 of shape (9,)"),
        ({"delta": torch.zeros(9, 1)}, "delta is torch.float32 of shape (9, 1), expected torch.float32 of shape (9,)"),
        (
            {"delta": torch.zeros(9).double()},
            "delta is torch.float64 of shape (9,), expected torch.float32 of shape (9,)",
        ),
        ({"delta": torch.full((9,), math.nan)}, "delta is not finite"),
        ({"delta": torch.tensor([0.0] * 8 + [math.inf])}, "delta is not finite"),
        ({"failure": "loss of task 'digit' is nan"}, "loss of task 'digit' is nan"),
        ({"examples": 0}, "trained 2 steps on 0 examples"),
        ({"steps": 0}, "trained 0 steps on 10 examples"),
        ({"momentum": 1.0}, "claims momentum 1.0, expected 0 to 0"),
        ({"learning_rate": math.nan}, "claims the learning rate nan, expected 0 to 0.1"),
        ({"tasks": ()}, "claims the tasks () of 2"),
        ({"tasks": (2,)}, "claims the tasks (2,) of 2"),
        ({"tasks": (0, 0)}, "claims the tasks (0, 0) of 2"),
    ],
)
def test_an_update_that_cannot_be_used_is_rejected_and_its_client_goes_on(toys, strategy, fields, reason) -> None:
    reaction = arrive(strategy, toys.make_update(0, **fields))
    assert reasons(reaction) == [reason]
    assert [assignment.client for assignment in reaction.decision.assignments] == [0]
    assert strategy.waiting == 0
    assert strategy.model.version == 0


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        ({}, "lacks the vector 'change'"),
        ({"change": torch.zeros(3)}, "change is torch.float32 of shape (3,), expected torch.float32 of shape (9,)"),
        ({"change": torch.full((9,), math.nan)}, "change is not finite"),
        ({"change": torch.zeros(9)}, None),
    ],
)
def test_vectors_that_a_policy_relies_on_are_checked_like_the_update(toys, vectors, reason) -> None:
    policy = Plain()
    policy.reported = ("change",)
    strategy = toys.ready(Strategy(Buffered(buffer_size=1), GradientAggregator(Uniform()), policy))
    strategy.orders(strategy.begin([0], 0.0).decision.assignments)
    assert reasons(arrive(strategy, toys.make_update(0, vectors=vectors))) == ([] if reason is None else [reason])


def test_large_updates_are_taken_but_not_those_whose_sums_and_squares_overflow(toys, strategy) -> None:
    assert reasons(arrive(strategy, toys.make_update(0, delta=torch.full((9,), 1e14)))) == []
    for job, entry in enumerate((1e15, 1e30), start=1):
        delta = torch.full((9,), entry)
        assert reasons(arrive(strategy, toys.make_update(0, job, delta=delta))) == ["delta is longer than 1e+15"]
        strategy.orders(strategy.on_event(Joined(1.0, 0)).decision.assignments)
    assert strategy.waiting == 1


def test_every_vector_that_is_sent_is_checked_asked_for_or_not(toys, strategy) -> None:
    update = toys.make_update(0, vectors={"task 1": torch.zeros(9)})
    assert reasons(arrive(strategy, update)) == ["carries the vector 'task 1', which nobody asked for"]
    apart = toys.ready(Strategy(Buffered(buffer_size=1), GradientAggregator(Uniform()), TasksApart()))
    apart.orders(apart.begin([0], 0.0).decision.assignments)
    update = toys.make_update(0, vectors={"task 1": torch.full((9,), 3e38)})
    assert reasons(arrive(apart, update)) == ["task 1 is longer than 1e+15"]


@pytest.mark.parametrize(
    ("scheduler", "most"), [(Buffered(buffer_size=3), 4), (Compass(q_max=7, first_task="explicit", first_steps=5), 5)]
)
def test_a_client_cannot_claim_more_steps_than_it_was_asked_for(toys, scheduler, most: int) -> None:
    strategy = Strategy(scheduler, GradientAggregator(Uniform()))
    strategy.initialise(toys.start_model(), TrainSettings(epochs=2, batch_size=6))
    strategy.orders(strategy.begin(range(3), 0.0).decision.assignments)
    again = Strategy(scheduler, GradientAggregator(Uniform()))
    again.initialise(toys.start_model())
    again.load_state_dict(toys.through_json(strategy.state_dict()))
    for client, steps in enumerate((most - 1, most, most + 1)):
        update = toys.make_update(client, steps=steps, examples=12, arrived_at=1.0)
        expected = [f"claims {steps} steps, was asked for {most}"] if steps > most else []
        assert reasons(arrive(again, update)) == expected


def test_a_strategy_that_was_run_is_not_run_again(toys, strategy) -> None:
    with pytest.raises(RuntimeError, match="'custom' was run before"):
        toys.ready(strategy)


def test_an_update_of_a_foreign_version_is_rejected(toys, strategy) -> None:
    assert reasons(arrive(strategy, toys.make_update(0, version=3))) == ["claims version 3, was sent 0"]


def test_duplicates_and_strangers_are_rejected_and_disturb_nobody(toys, strategy) -> None:
    assert reasons(arrive(strategy, toys.make_update(0))) == []
    duplicate = arrive(strategy, toys.make_update(0))
    assert reasons(duplicate) == ["duplicate or given up"]
    assert duplicate.decision.assignments == ()
    assert reasons(arrive(strategy, toys.make_update(0, job=2))) == ["never asked for"]
    assert reasons(arrive(strategy, toys.make_update(77))) == ["never asked for"]
    assert reasons(arrive(strategy, toys.make_update(0, job=1))) == []
    assert strategy.waiting == 2


def test_an_answer_after_its_client_was_lost_is_rejected(toys, strategy) -> None:
    strategy.on_event(Lost(1.0, 0, "gone"))
    assert reasons(arrive(strategy, toys.make_update(0))) == ["duplicate or given up"]
    again = strategy.on_event(Joined(2.0, 0)).decision.assignments
    assert [order.job for order in strategy.orders(again)] == [1]


def test_joining_while_busy_changes_nothing(strategy) -> None:
    assert strategy.on_event(Joined(1.0, 0)) == Reaction(strategy.on_event(Joined(1.0, 1)).decision)
    assert strategy.on_event(Joined(1.0, 0)).decision.assignments == ()


def test_a_scheduler_may_reject_what_it_was_given(toys) -> None:
    strategy = toys.ready(Strategy(Buffered(buffer_size=1, max_staleness=0), ModelAggregator(Uniform())))
    strategy.orders(strategy.begin(range(2), 0.0).decision.assignments)
    arrive(strategy, toys.make_update(0))
    reaction = arrive(strategy, toys.make_update(1))
    assert reasons(reaction) == ["1 versions behind, at most 0 allowed"]
    assert strategy.waiting == 0


def test_a_queued_update_does_not_change_when_its_client_trains_on(toys) -> None:
    """What is uploaded is the client's to read and nobody's to write: a client trains in a vector of its own."""
    strategy = toys.ready(Strategy(Buffered(buffer_size=2), GradientAggregator(Uniform())))
    strategy.orders(strategy.begin(range(2), 0.0).decision.assignments)
    start, working = strategy.model.vector, torch.zeros(9)
    uploads = []
    for job in range(2):
        working.copy_(start + job + 1.0)
        update = toys.make_update(0, job, delta=working - start)
        uploads.append(update.delta.clone())
        arrive(strategy, update)
        working.fill_(100.0)
    torch.testing.assert_close(strategy.model.vector, start + sum(uploads) / 2)


def test_the_feedback_bit_that_counts_is_the_one_uploaded_with_the_update(toys) -> None:
    """The client is retyped before its first update is aggregated."""
    weighting = FedQSWeights(Uniform(), phi=0.1)
    strategy = toys.ready(Strategy(Buffered(buffer_size=3), GradientAggregator(weighting), FedQSPolicy()))
    strategy.orders(strategy.begin(range(3), 0.0).decision.assignments)
    arrive(strategy, toys.make_update(0, 0, terms=toys.fedqs_terms(feedback=True, similarity=80.0, client_type="FBC")))
    arrive(strategy, toys.make_update(0, 1, terms=toys.fedqs_terms(similarity=20.0, client_type="FUC")))
    reaction = strategy.on_event(Arrival(1.0, toys.make_update(1)))
    aggregation = strategy.aggregate(reaction.decision, 1.0)
    said = [(update.terms.get("feedback"), update.terms.get("similarity")) for update in aggregation.updates]
    assert said == [(1.0, 80.0), (None, 20.0), (None, None)]
    assert strategy.ledger.reports("similarity").latest[0] == 20.0
    # f_0 = 2/3 counts both updates, theta_bar = 20 the newest of each client; G = 80 / 20 is capped at 2.
    raised = (math.e / 2) ** (0.1 - 2 / 3) * (1 + 2**2)
    assert aggregation.weights == pytest.approx([raised / (raised + 2), 1 / (raised + 2), 1 / (raised + 2)])


def test_a_base_vector_is_kept_while_an_order_or_update_needs_it_and_not_longer(toys) -> None:
    strategy = toys.ready(Strategy(Buffered(buffer_size=2), ModelAggregator(Uniform())))

    def kept() -> list[int]:
        return strategy.state_dict()["bases"]["versions"]

    strategy.orders(strategy.begin(range(4), 0.0).decision.assignments)
    assert kept() == [0]
    arrive(strategy, toys.make_update(0))
    arrive(strategy, toys.make_update(1))  # version 1; clients 2 and 3 still train from 0, client 0 too
    assert kept() == [0, 1]
    arrive(strategy, toys.make_update(2))
    strategy.on_event(Lost(2.0, 3, "gone"))
    arrive(strategy, toys.make_update(0, 1, delta=torch.full((9,), math.nan)))
    assert kept() == [0, 1]  # update 2 is received, but not yet applied
    arrive(strategy, toys.make_update(1, 1, 1))
    assert kept() == [1, 2]


def test_no_base_vector_is_kept_for_gradient_aggregation(strategy) -> None:
    assert strategy.state_dict()["bases"]["versions"] == []


def test_orders_carry_model_job_settings_and_a_seed_of_their_own(toys) -> None:
    strategy = Strategy(Buffered(buffer_size=2), GradientAggregator(Uniform()), Proximal(mu=0.3), NTKMTLSR(w_max=5.0))
    settings = TrainSettings(epochs=3, learning_rate=0.05)
    strategy.initialise(toys.start_model(), settings, seed=4)
    orders = strategy.orders(strategy.begin(range(3), 0.0).decision.assignments)
    assert [order.key for order in orders] == [(0, 0), (1, 0), (2, 0)]
    assert len({order.seed for order in orders}) == 3
    for order in orders:
        assert order.base is strategy.model
        assert (order.settings.epochs, order.settings.learning_rate, order.settings.proximal) == (3, 0.05, 0.3)
        assert (order.balancing.name, dict(order.balancing.options)) == ("ntkmtl-sr", {"w_max": 5.0})
        assert (order.policy, order.task_factors) == ("plain", None)


def test_task_weights_by_name() -> None:
    assert Equal().balancing.name == "equal"
    assert LocalBalancing("pcgrad").balancing.name == "pcgrad"
    assert NTKMTL(p=0.5).balancing.options == {"p": 0.5}


def test_nothing_works_before_there_is_a_model() -> None:
    with pytest.raises(RuntimeError, match="initialise"):
        _ = Strategy(Buffered(buffer_size=2), GradientAggregator(Uniform())).model


def test_a_busy_client_cannot_be_given_another_order(strategy) -> None:
    from fedmtl.protocol import Assignment

    with pytest.raises(RuntimeError, match="client 2, which is still training"):
        strategy.orders([Assignment(2)])


def test_a_part_without_state_refuses_one() -> None:
    with pytest.raises(ValueError, match="Uniform keeps no state"):
        Uniform().load_state_dict({"momentum": 1.0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e9])
def test_an_update_with_a_followed_term_that_is_not_credible_is_rejected_and_followed_nowhere(toys, value) -> None:
    strategy = toys.ready(Strategy(Buffered(buffer_size=1), GradientAggregator(Uniform()), FedQSPolicy()))
    strategy.orders(strategy.begin([0], 0.0).decision.assignments)
    update = toys.make_update(0, terms={"similarity": value})
    assert reasons(arrive(strategy, update)) == [f"claims similarity = {value:g}, expected 0 to 180"]
    assert strategy.ledger.reports("similarity").left_out == 0
    assert strategy.ledger.mean("similarity") is None
