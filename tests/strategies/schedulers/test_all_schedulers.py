"""What every scheduler holds to, over random fleets with drop-outs, drop-ins, rubbish and ties."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.randomness import derive_seed
from fedmtl.state import split
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.loop import Loop
from strategies.parts import Scheduler
from strategies.schedulers import Asynchronous, Buffered, Compass, LagTolerant, Pooled, Queued, Synchronous, Tiered
from strategies.selectors import HeteroSelect, OortSelector
from strategies.strategy import Strategy
from strategies.weightings import Uniform

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "synchronous": Synchronous,
    "synchronous, 3 a round": lambda: Synchronous(3),
    "synchronous, time-out": lambda: Synchronous(timeout=5.0),
    "synchronous, time-out, late kept": lambda: Synchronous(timeout=5.0, late="keep"),
    "synchronous, hasty, 3 a round": lambda: Synchronous(3, timeout=0.5),
    "synchronous, 4 asked, 3 a round": lambda: Synchronous(3, over_commit=1.3),
    "synchronous, 6 asked, 3 a round, late kept": lambda: Synchronous(3, over_commit=2.0, timeout=9.0, late="keep"),
    "synchronous, steps to fit": lambda: Synchronous(step_budget=4.0),
    "synchronous, Oort, 3 a round": lambda: Synchronous(3, selector=OortSelector(), over_commit=1.1, timeout=9.0),
    "synchronous, HeteRo-Select, 3 a round": lambda: Synchronous(3, selector=HeteroSelect()),
    "asynchronous": Asynchronous,
    "asynchronous, 3 busy": lambda: Asynchronous(3),
    "buffered": lambda: Buffered(4),
    "buffered, 3 busy": lambda: Buffered(4, concurrency=3),
    "buffered, 3 busy, Oort": lambda: Buffered(4, concurrency=3, selector=OortSelector()),
    "buffered, 3 busy, HeteRo-Select": lambda: Buffered(4, concurrency=3, selector=HeteroSelect()),
    "buffered, fresh only": lambda: Buffered(4, max_staleness=2),
    "buffered, ticks": lambda: Buffered(4, clock="tick"),
    "buffered, ticks, 3 busy": lambda: Buffered(4, clock="tick", concurrency=3),
    "buffered, one per tick": lambda: Buffered(4, clock="tick", buffer="one_per_tick"),
    "buffered, more than there are": lambda: Buffered(50),
    "buffered, every task": lambda: Buffered(4, max_size=7),
    "buffered, every task, ticks": lambda: Buffered(4, max_size=7, clock="tick"),
    "compass": Compass,
    "compass, short and early to close": lambda: Compass(q_max=8, q_min=1, latency_factor=1.05, late_test="inclusive"),
    "compass, affine, hasty": lambda: Compass(q_max=20, speed_model="affine", timeout_seconds=7.0),
    "lag-tolerant": lambda: LagTolerant(4),
    "lag-tolerant, hardly": lambda: LagTolerant(2, lag=1),
    "lag-tolerant, little lag, time limit": lambda: LagTolerant(4, lag=2, round_limit=3.0),
    "pooled": lambda: Pooled(2),
    "pooled, slow server, 3 busy": lambda: Pooled(2, concurrency=3, tick=4.0),
    "queued": lambda: Queued(10.0),
    "queued, hasty": lambda: Queued(2.0, tolerance=0.0, safety=5.0),
    "tiered": lambda: Tiered(3),
    "tiered, one": lambda: Tiered(1),
    "tiered, 2 a round": lambda: Tiered(2, clients_per_round=2),
}
ROUNDS = ("synchronous", "lag-tolerant", "tiered", "queued")  # where clients may wait for others
LIMITS = {name: 3 for name in SCHEDULERS if "3" in name}
FAULTS = ("nan", "length", "version", "failure", "duplicate", "stranger", "similarity")

every_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


@st.composite
def worlds(draw: st.DrawFn) -> dict:
    """A fleet's size and seed, and how often (in a thousand) things go wrong in it."""
    return {
        "clients": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 2**32)),
        "speeds": draw(st.sampled_from([1, 3, 20])),
        "losses": draw(st.sampled_from([0, 20, 300])),
        "for_good": draw(st.sampled_from([0, 300])),
        "faults": draw(st.sampled_from([0, 50, 300])),
    }


def make_fleet(toys, world: dict):
    seed = world["seed"]

    def chance(purpose: str, client: int, job: int, per_mille: int) -> bool:
        return derive_seed(seed, purpose, client, job) % 1000 < per_mille

    def duration(client: int, job: int) -> float:
        return 1.0 + derive_seed(seed, "duration", client, job) % world["speeds"]

    def outage(client: int, job: int) -> tuple[float, float | None] | None:
        if not chance("lost", client, job, world["losses"]):
            return None
        after = 0.5 * (derive_seed(seed, "after", client, job) % 6)
        return after, None if chance("for good", client, job, world["for_good"]) else after + 0.5

    def fault(client: int, job: int) -> str:
        if not chance("fault", client, job, world["faults"]):
            return ""
        return FAULTS[derive_seed(seed, "which", client, job) % len(FAULTS)]

    return toys.Fleet(world["clients"], duration, toys.Quirks(outage, fault))


def make_strategy(name: str, *, model: bool = False) -> Strategy:
    return Strategy(SCHEDULERS[name](), (ModelAggregator if model else GradientAggregator)(Uniform()))


@every_scheduler
@settings(max_examples=12, deadline=None)
@given(world=worlds())
def test_every_upload_is_applied_once_or_rejected_or_still_waits(toys, name: str, world: dict) -> None:
    loop, trace = toys.run(make_strategy(name), make_fleet(toys, world), events=200)
    applied = Counter(update.key for aggregation in trace.aggregations for update in aggregation.updates)
    assert max(applied.values(), default=1) == 1
    rejected = [rejection.update for rejection in trace.rejections]
    settled = [update for a in trace.aggregations for update in a.updates] + rejected + list(loop.strategy.unsettled())
    assert Counter(map(id, settled)) == Counter(map(id, trace.received))
    assert all(rejection.reason for rejection in trace.rejections)
    assert loop.strategy.ledger.total == len(applied)


@every_scheduler
@settings(max_examples=12, deadline=None)
@given(world=worlds())
def test_versions_rise_by_one_and_no_update_is_from_the_future(toys, name: str, world: dict) -> None:
    _, trace = toys.run(make_strategy(name), make_fleet(toys, world), events=200)
    assert [aggregation.version for aggregation in trace.aggregations] == list(range(1, len(trace.aggregations) + 1))
    for aggregation in trace.aggregations:
        assert aggregation.updates
        assert aggregation.trigger in {"full", "rest", "all", "single", "enough", "deadline", "flush"}
        for update, tau in zip(aggregation.updates, aggregation.staleness, strict=True):
            assert tau == aggregation.version - 1 - update.base_version >= 0
    times = [aggregation.time for aggregation in trace.aggregations]
    assert times == sorted(times)
    assert all(torch.isfinite(vector).all() for vector in trace.vectors)


@every_scheduler
@settings(max_examples=12, deadline=None)
@given(world=worlds())
def test_nobody_is_forgotten_and_nothing_hangs(toys, name: str, world: dict) -> None:
    """Whenever no deadline is due, as many clients are busy as may be; a run ends only when all are gone for good."""
    fleet = make_fleet(toys, world)

    def check(loop) -> None:
        due = loop.strategy.next_deadline()
        if due is not None:
            assert due >= fleet.now()
            return
        there = world["clients"] - len(fleet.away)
        busy = len(loop.strategy.state_dict()["in_flight"])
        if name.startswith(ROUNDS):
            assert (busy > 0) == (there > 0)
        else:
            assert busy == min(there, LIMITS.get(name, there))

    loop, _ = toys.run(make_strategy(name), fleet, events=200, check=check)
    if loop.ended != "events":
        assert len(fleet.away) == world["clients"]
        assert loop.strategy.waiting == 0


@every_scheduler
@settings(max_examples=12, deadline=None)
@given(world=worlds(), moment=st.integers(1, 120), model=st.booleans())
def test_a_run_cut_at_any_event_goes_on_to_the_same_bits(
    toys, name: str, world: dict, moment: int, model: bool
) -> None:
    whole, seen = toys.run(make_strategy(name, model=model), make_fleet(toys, world), events=150)
    first, _ = toys.run(
        make_strategy(name, model=model), make_fleet(toys, world), events=min(moment, len(seen.events)), cut=True
    )
    rest = make_strategy(name, model=model)
    rest.initialise(toys.start_model())
    trace = toys.Trace()
    second = Loop(rest, make_fleet(toys, world), [trace])
    second.load_state_dict(toys.through_json(first.state_dict()))
    left = len(seen.events) - min(moment, len(seen.events))
    second.run(lambda loop: "events" if len(trace.events) >= left else None)
    assert torch.equal(rest.model.vector, whole.strategy.model.vector)
    (plain, tensors), (wanted, wanted_tensors) = split(second.state_dict()), split(whole.state_dict())
    assert json.dumps(plain) == json.dumps(wanted)  # as text, where what is not a number equals itself
    assert all(torch.equal(tensors[key].nan_to_num(), wanted_tensors[key].nan_to_num()) for key in wanted_tensors)
    assert [type(event) for event in trace.events] == [type(event) for event in seen.events[len(seen.events) - left :]]


@every_scheduler
def test_an_event_takes_no_more_steps_with_a_hundred_thousand_clients_than_with_a_hundred(toys, name: str) -> None:
    def lines(clients: int) -> list[int]:
        scheduler = SCHEDULERS[name]()
        scheduler.prepare(toys.start_model(), 0)
        busy = [assignment.client for assignment in scheduler.begin(range(clients), 0.0).assignments]
        return [lines_run(scheduler.on_update, toys.make_update(client), 1.0) for client in busy[:3]]

    assert lines(100) == lines(100_000)


def lines_run(call: Callable[..., object], *arguments: object) -> int:
    """Lines of the schedulers' code that a call executes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line" and "schedulers" in frame.f_code.co_filename
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call(*arguments)
    finally:
        sys.settrace(before)
    return count


def test_begin_with_nobody_waits_for_the_first_to_join(toys) -> None:
    for name, make in SCHEDULERS.items():
        scheduler = make()
        scheduler.prepare(toys.start_model(), 0)
        assert scheduler.begin([], 0.0).assignments == (), name
        decision = scheduler.on_idle(7, 1.0)
        if not decision.assignments and (due := scheduler.next_deadline()) is not None:
            decision = scheduler.on_deadline(due)
        assert [a.client for a in decision.assignments] == [7], name
