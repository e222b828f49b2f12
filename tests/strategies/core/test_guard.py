"""The guard: what is far too long goes, whenever it comes, and honest updates stay."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import Arrival, Deadline, Lost, TrainOrder
from fedmtl.toy import toy_model, toy_update
from strategies.core.fleet import ToyFleet
from strategies.core.guard import PATIENCE, RunningMedian
from strategies.core.kinds import Plain, Reaction
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy

HOSTILE = 7
METHODS = ("fedavg", "fedasync", "mstep", "wkafl", "fedbuff", "fedqs", "fedcompass", "fedat", "safa", "fedadam")


class Seen(Observer):
    """Which clients' updates were applied, and which were turned down."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.rejected: list[tuple[int, str]] = []

    def on_aggregation(self, loop: Loop, aggregation: Any) -> None:
        self.applied += [update.client for update in aggregation.updates]

    def on_rejection(self, loop: Loop, rejection: Any) -> None:
        self.rejected.append((rejection.update.client, rejection.reason))


def fleet_with(hostile: torch.Tensor, *, clients: int = 20, first: bool = True) -> ToyFleet:
    """Clients that halve what they are sent; one sends something else, before all others or after them."""
    seconds = {client: 1.0 + 0.01 * client for client in range(clients)} | {HOSTILE: 0.9 if first else 1.5}
    return ToyFleet(seconds, lambda order: hostile if order.client == HOSTILE else honest(order))


def honest(order: TrainOrder) -> torch.Tensor:
    return -0.5 * order.base.vector + 0.01 * (order.client + 1)


def meet(name: str, fleet: ToyFleet, guard: float | None, versions: int = 30) -> tuple[Strategy, Seen]:
    strategy, seen = build_strategy(name, {}), Seen()
    strategy.initialise(toy_model([4.0, -4.0, 2.0, 1.0], heads=(1, 1)))
    strategy.guard_by(guard)
    Loop(strategy, fleet, [seen]).run(lambda loop: "enough" if loop.strategy.model.version >= versions else None)
    return strategy, seen


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_one_client_of_twenty_ruins_no_method(name: str, first: bool) -> None:
    ruin = torch.full((4,), 1e3)
    _, without = meet(name, fleet_with(ruin, first=first), guard=0.0)
    assert HOSTILE in without.applied, "otherwise the guard has nothing to do"
    strategy, seen = meet(name, fleet_with(ruin, first=first), guard=50.0)
    assert HOSTILE not in seen.applied
    assert {client for client, reason in seen.rejected if "times the median" in reason} == {HOSTILE}
    assert strategy.model.vector.abs().max() < 10.0


def test_a_head_is_judged_by_itself() -> None:
    """In the whole update it hardly shows."""
    spoilt = torch.tensor([-2.0, 2.0, -1.0, 60.0])
    strategy, seen = meet("fedasync", fleet_with(spoilt), guard=20.0, versions=8)
    assert HOSTILE not in seen.applied
    assert all("'head 1'" in reason for _, reason in seen.rejected)
    assert set(strategy.guard.largest_ratio) == {"model", "head 0", "head 1"}


def test_honest_updates_are_all_taken_and_the_largest_ratio_is_kept() -> None:
    strategy, seen = meet("fedasync", fleet_with(torch.tensor([-2.0, 2.0, -1.0, -0.5])), guard=50.0)
    assert not seen.rejected
    assert 1.0 <= strategy.guard.largest_ratio["model"] < 50.0


def test_the_guard_is_off_in_a_simulation_and_on_for_real_clients_unless_it_is_set() -> None:
    strategy = build_strategy("fedasync", {})
    strategy.face(simulated=True)
    assert strategy.guard.factor == 0.0
    strategy.face(simulated=False)
    assert strategy.guard.factor == 50.0
    strategy.guard_by(0.0)
    strategy.face(simulated=False)
    assert strategy.guard.factor == 0.0


def test_a_factor_that_would_refuse_the_usual_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy.guard = 0.5: 0 for no guard, or a factor from 1 on"):
        build_strategy("fedasync", {}).guard_by(0.5)


def guarded(**options: Any) -> Strategy:
    """An asynchronous strategy over real clients, which it has given their first orders."""
    strategy = build_strategy("fedasync", {})
    strategy.initialise(toy_model([0.0, 0.0]))
    strategy.face(simulated=False)
    strategy.orders(strategy.begin(range(options.get("clients", 5)), 0.0).decision.assignments)
    return strategy


def answer(strategy: Strategy, event: Any) -> list[Reaction]:
    """All reactions to an event, each carried out before the next."""
    reactions = []
    for reaction in strategy.reactions(event):
        if reaction.decision.aggregate:
            strategy.aggregate(reaction.decision, event.time)
        strategy.orders(reaction.decision.assignments)
        reactions.append(reaction)
    return reactions


def settled(reactions: list[Reaction]) -> list[tuple[int, bool]]:
    """Clients in the order in which their updates were settled, and whether these were applied."""
    found = []
    for reaction in reactions:
        found += [(key.client, True) for key in reaction.decision.aggregate]
        found += [(rejection.update.client, False) for rejection in reaction.rejections]
    return found


def arrival(client: int, entry: float, time: float = 1.0, **fields: Any) -> Arrival:
    return Arrival(time, toy_update(client, [entry, 0.0], arrived_at=time, **fields))


def test_the_first_updates_are_held_until_most_of_a_small_fleet_has_answered() -> None:
    strategy = guarded()
    assert not settled(answer(strategy, arrival(0, 1e4)))
    assert not settled(answer(strategy, arrival(1, 1.0)))
    assert strategy.waiting == 2
    assert settled(answer(strategy, arrival(2, 2.0))) == [(0, False), (1, True), (2, True)]
    assert strategy.waiting == 0
    assert settled(answer(strategy, arrival(3, 1e4))) == [(3, False)], "from then on each at once"
    assert settled(answer(strategy, arrival(4, 3.0))) == [(4, True)]


def test_of_a_large_fleet_ten_are_held() -> None:
    strategy = guarded(clients=100)
    assert not settled([r for client in range(9) for r in answer(strategy, arrival(client, 1.0))])
    assert [applied for _, applied in settled(answer(strategy, arrival(9, 1.0)))] == [True] * 10


def test_two_clients_are_not_kept_waiting_for_a_third() -> None:
    strategy = guarded(clients=2)
    assert settled(answer(strategy, arrival(0, 5.0))) == [(0, True)]


def test_clients_that_hang_delay_the_first_updates_not_for_long() -> None:
    strategy = guarded()
    answer(strategy, arrival(0, 1.0, time=3.0))
    assert strategy.next_deadline() == 3.0 + PATIENCE
    assert settled(answer(strategy, Deadline(3.0 + PATIENCE))) == [(0, True)]
    assert strategy.next_deadline() is None
    strategy = guarded()
    answer(strategy, arrival(0, 1.0, time=3.0))
    answer(strategy, arrival(1, 1.0, time=5.0))
    assert strategy.next_deadline() == 5.0 + 2 * 5.0, "a third is waited for twice as long as the slower of two took"
    assert settled(answer(strategy, Deadline(15.0))) == [(0, True), (1, True)]


def test_what_a_client_sent_before_it_was_lost_counts_once() -> None:
    strategy = guarded()
    answer(strategy, arrival(0, 1.0))
    assert settled(answer(strategy, Lost(2.0, 0, "gone"))) == [(0, True)]
    assert strategy.ledger.aggregated == {0: 1}


def test_a_state_that_is_saved_while_updates_are_held_goes_on() -> None:
    strategy = guarded()
    for client, entry in enumerate((1e4, 1.0)):
        answer(strategy, arrival(client, entry))
    again = build_strategy("fedasync", {})
    again.initialise(toy_model([0.0, 0.0]))
    again.face(simulated=False)
    again.load_state_dict(strategy.state_dict())
    assert settled(answer(again, arrival(2, 2.0))) == [(0, False), (1, True), (2, True)]
    assert again.guard.state_dict() == {**again.guard.state_dict(), "rejected": 1, "held": []}


def test_updates_of_length_zero_are_no_trouble() -> None:
    strategy = guarded()
    entries = (0.0, 0.0, 0.0, 1.0, 1e3)
    applied = settled([r for client, entry in enumerate(entries) for r in answer(strategy, arrival(client, entry))])
    assert applied == [(client, True) for client in range(5)], "there is no median above 0 of three yet"
    assert settled(answer(strategy, arrival(3, 0.0, job=1, base_version=4))) == [(3, True)]


def test_where_orders_name_the_steps_lengths_are_taken_by_step() -> None:
    """FedCompass: ten times the steps may be ten times as long."""
    strategy = build_strategy("fedcompass", {"q_min": 1, "q_max": 200})
    strategy.face(simulated=False)
    long, short = toy_update(0, [200.0], steps=200), toy_update(1, [1.0], steps=1)
    for update in (long, short):
        lengths = strategy.guard.lengths(())
        lengths.square("delta", update.delta)
        assert strategy.guard.measured(update, lengths, {}) == {"model": 1.0}


def test_a_vector_that_enters_the_model_is_judged_by_itself() -> None:
    class Variates(Plain):
        reported = ("change",)

    strategy = build_strategy("fedasync", {})
    strategy.policy = Variates()
    strategy.initialise(toy_model([0.0, 0.0]))
    strategy.face(simulated=False)
    strategy.orders(strategy.begin(range(4), 0.0).decision.assignments)
    reactions = []
    for client, size in enumerate((1e3, 1.0, 1.0, 1.0)):
        reactions += answer(strategy, arrival(client, 1.0, vectors={"change": torch.tensor([size, 0.0])}))
    assert settled(reactions) == [(0, False), (1, True), (2, True), (3, True)]
    (rejection,) = (rejection for reaction in reactions for rejection in reaction.rejections)
    assert rejection.reason.startswith("is in 'change' 1e+03 long")


@given(st.lists(st.floats(1e-30, 1e15), min_size=1, max_size=60), st.data())
def test_the_running_median_is_the_median_whatever_comes_and_goes(numbers: list[float], data: st.DataObject) -> None:
    running, held = RunningMedian(), []
    for number in numbers:
        running.add(number)
        held.append(number)
        if len(held) > 1 and data.draw(st.booleans()):
            running.add(held.pop(data.draw(st.integers(0, len(held) - 1))), -1)
        assert running.count == len(held)
        assert running.value == pytest.approx(statistics.median_high(held), rel=0.006)
    again = RunningMedian()
    again.load_state_dict(running.state_dict())
    assert again.value == running.value
    assert math.isfinite(again.value)
