"""What every scheduler holds to, over random fleets with drop-outs, drop-ins, rubbish and ties.

Long because each property is held once, for all schedulers.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from types import FrameType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.protocol import TrainOrder
from fedmtl.randomness import derive_seed
from fedmtl.state import split
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.core.kinds import Scheduler
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.schedulers import (
    Asynchronous,
    Buffered,
    Compass,
    LagTolerant,
    Pooled,
    Queued,
    Synchronous,
    Tiered,
)
from strategies.selectors import HeteroSelect, OortSelector
from strategies.selectors.paced import PacedSelector
from strategies.weightings import Uniform

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "synchronous": Synchronous,
    "synchronous, 3 a round": lambda: Synchronous(clients_per_round=3),
    "synchronous, time-out": lambda: Synchronous(timeout=5.0),
    "synchronous, time-out, late kept": lambda: Synchronous(timeout=5.0, late="keep"),
    "synchronous, hasty, 3 a round": lambda: Synchronous(clients_per_round=3, timeout=0.5),
    "synchronous, 4 asked, 3 a round": lambda: Synchronous(clients_per_round=3, over_commit=1.3),
    "synchronous, 6 asked, 3 a round, late kept": lambda: Synchronous(
        clients_per_round=3, over_commit=2.0, timeout=9.0, late="keep"
    ),
    "synchronous, steps to fit": lambda: Synchronous(step_budget=4.0),
    "synchronous, Oort, 3 a round": lambda: Synchronous(
        clients_per_round=3, selection=OortSelector(), over_commit=1.1, timeout=9.0
    ),
    "synchronous, HeteRo-Select, 3 a round": lambda: Synchronous(clients_per_round=3, selection=HeteroSelect()),
    "synchronous, curriculum, 3 a round": lambda: Synchronous(
        clients_per_round=3, selection=PacedSelector(client_order="hard_first", versions=9), timeout=9.0, late="keep"
    ),
    "asynchronous": Asynchronous,
    "asynchronous, 3 busy": lambda: Asynchronous(concurrency=3),
    "buffered": lambda: Buffered(buffer_size=4),
    "buffered, 3 busy": lambda: Buffered(buffer_size=4, concurrency=3),
    "buffered, 3 busy, Oort": lambda: Buffered(buffer_size=4, concurrency=3, selection=OortSelector()),
    "buffered, 3 busy, HeteRo-Select": lambda: Buffered(buffer_size=4, concurrency=3, selection=HeteroSelect()),
    "buffered, fresh only": lambda: Buffered(buffer_size=4, max_staleness=2),
    "buffered, ticks": lambda: Buffered(buffer_size=4, clock="tick"),
    "buffered, ticks, 3 busy": lambda: Buffered(buffer_size=4, clock="tick", concurrency=3),
    "buffered, one per tick": lambda: Buffered(buffer_size=4, clock="tick", buffer="one_per_tick"),
    "swept": lambda: Buffered(buffer_size=4, clock="tick", tick_order="client"),
    "swept, one per tick, 3 busy": lambda: Buffered(
        buffer_size=4, clock="tick", tick_order="client", buffer="one_per_tick", concurrency=3
    ),
    "buffered, more than there are": lambda: Buffered(buffer_size=50),
    "buffered, every task": lambda: Buffered(buffer_size=4, max_buffer=7),
    "buffered, every task, ticks": lambda: Buffered(buffer_size=4, max_buffer=7, clock="tick"),
    "buffered, hurried": lambda: Buffered(buffer_size=4, flush_seconds=1.5),
    "buffered, hurried, every task, fresh only": lambda: Buffered(
        buffer_size=4, max_buffer=7, flush_seconds=2.0, max_staleness=2
    ),
    "buffered, hurried, ticks, 3 busy": lambda: Buffered(buffer_size=4, clock="tick", flush_seconds=1.0, concurrency=3),
    "buffered, hurried, one per tick": lambda: Buffered(
        buffer_size=4, clock="tick", buffer="one_per_tick", tick=3.0, max_buffer=7, flush_seconds=0.5
    ),
    "compass": Compass,
    "compass, short and early to close": lambda: Compass(q_max=8, q_min=1, latency_factor=1.05, late_test="inclusive"),
    "compass, affine, hasty": lambda: Compass(q_max=20, speed_model="affine", timeout_seconds=7.0),
    "compass, from explicit steps, wide to join": lambda: Compass(
        q_max=10, q_min=1, first_task="explicit", first_steps=7, join_bound=1.2, timeout_factor=0.3
    ),
    "lag-tolerant": lambda: LagTolerant(buffer_size=4),
    "lag-tolerant, hardly": lambda: LagTolerant(buffer_size=2, lag=1),
    "lag-tolerant, little lag, time limit": lambda: LagTolerant(buffer_size=4, lag=2, round_limit=3.0),
    "lag-tolerant, of the unpicked": lambda: LagTolerant(buffer_size=2, lag=1, deprecated="by_not_picked"),
    "pooled": lambda: Pooled(buffer_size=2),
    "pooled, slow server, 3 busy": lambda: Pooled(buffer_size=2, concurrency=3, tick=4.0),
    "queued": lambda: Queued(round_seconds=10.0),
    "queued, hasty": lambda: Queued(round_seconds=2.0, tolerance=0.0, safety=5.0),
    "tiered": lambda: Tiered(tiers=3),
    "tiered, one": lambda: Tiered(tiers=1),
    "tiered, 2 a round": lambda: Tiered(tiers=2, clients_per_round=2),
}
ROUNDS = ("synchronous", "lag-tolerant", "tiered", "queued")  # where clients may wait for others
LIMITS = {name: 3 for name in SCHEDULERS if "3" in name}
STEPS = {  # the bounds of an order's steps; where a scheduler is not named, the client's usual work is done
    "compass": (20, 100),
    "compass, short and early to close": (1, 8),
    "compass, affine, hasty": (4, 20),
    "compass, from explicit steps, wide to join": (1, 12),
    "queued": (1, 200),
    "queued, hasty": (1, 200),
}
FLEETS = int(os.environ.get("FEDMTL_FLEETS", "45"))
"""Random fleets for each scheduler and property; more for a thorough search."""
FAULTS = ("nan", "length", "version", "failure", "duplicate", "stranger", "similarity")

Absence = Callable[[int, int], tuple[float, float | None] | None]

every_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


@st.composite
def worlds(draw: st.DrawFn) -> dict:
    """A fleet's size and seed, and how often (in a thousand) things go wrong in it."""
    return {
        "clients": draw(st.integers(1, 9)),
        "newcomers": draw(st.sampled_from([0, 0, 3])),
        "seed": draw(st.integers(0, 2**32)),
        "speeds": draw(st.sampled_from([1, 3, 20])),
        "jitter": draw(st.booleans()),
        "losses": draw(st.sampled_from([0, 20, 300])),
        "strolls": draw(st.sampled_from([0, 0, 200])),
        "for_good": draw(st.sampled_from([0, 300, 1000])),
        "faults": draw(st.sampled_from([0, 50, 300])),
    }


def make_fleet(toys, world: dict):
    """Clients that drop out at work or while they wait, come back or do not, are new, or send rubbish; with ties."""
    seed = world["seed"]

    def draw(purpose: str, client: int, job: int, below: int) -> int:
        return derive_seed(seed, purpose, client, job) % below

    def duration(client: int, job: int) -> float:
        whole = 1.0 + draw("duration", client, job, world["speeds"])
        return whole * (0.8 + 0.4 * draw("jitter", client, job, 1000) / 1000) if world["jitter"] else whole

    def absence(purpose: str, per_mille: int, shortest: float) -> Absence:
        def plan(client: int, job: int) -> tuple[float, float | None] | None:
            if draw(purpose, client, job, 1000) >= per_mille:
                return None
            after = shortest * draw("after", client, job, 6)
            return after, None if draw("for good", client, job, 1000) < world["for_good"] else after + shortest

        return plan

    def fault(client: int, job: int) -> str:
        hit = draw("fault", client, job, 1000) < world["faults"]
        return FAULTS[draw("which", client, job, len(FAULTS))] if hit else ""

    quirks = toys.Quirks(
        outage=absence("lost", world["losses"], 0.5),
        stroll=absence("stroll", world["strolls"], 0.25),
        newcomers=[1.0 + draw("newcomer", client, 0, 20) for client in range(world["newcomers"])],
        fault=fault,
    )
    return toys.Fleet(world["clients"], duration, quirks)


def make_strategy(name: str, *, model: bool = False) -> Strategy:
    return Strategy(SCHEDULERS[name](), (ModelAggregator if model else GradientAggregator)(Uniform()))


def busy_clients(loop: Loop) -> set[int]:
    return {client for client, *_ in loop.strategy.state_dict()["in_flight"]}


class Attention:
    """Checks after each event that nobody who is there is forgotten."""

    def __init__(self, name: str, world: dict) -> None:
        self.name = name
        self.everybody = set(range(world["clients"] + world["newcomers"]))
        self.limit = LIMITS.get(name, len(self.everybody))
        self.idle_since: dict[int, float] = {}
        self.full, self.then = True, 0.0

    def __call__(self, loop: Loop) -> None:
        now, due = loop.fleet.now(), loop.strategy.next_deadline()
        there, busy = self.everybody - loop.fleet.away, busy_clients(loop)
        assert busy <= there
        assert due is None or due >= now
        assert due is not None or (len(busy) > 0) == (len(there) > 0)
        if self.name.startswith("compass"):
            groups = loop.strategy.scheduler.groups.values()
            assert there - busy == {client for group in groups for client in group.waiting}
        elif self.name.startswith(ROUNDS):
            self._nobody_waits_long(there - busy, now)
        else:
            self._as_many_are_busy_as_may_be(len(busy) == min(len(there), self.limit), now, due)

    def _nobody_waits_long(self, idle: set[int], now: float) -> None:
        """Where all that are there are asked, a client waits for the end of a round and not for another one."""
        self.idle_since = {client: self.idle_since.get(client, now) for client in idle}
        if "a round" not in self.name:
            longest = 150.0 if self.name == "synchronous, steps to fit" else 25.0
            assert all(now - since <= longest for since in self.idle_since.values())

    def _as_many_are_busy_as_may_be(self, full: bool, now: float, due: float | None) -> None:
        """When an instant is over."""
        assert self.full or now == self.then
        assert full or due is not None
        self.full, self.then = full, now


def each_upload_is_applied_once_or_rejected_or_still_waits(loop: Loop, trace) -> None:
    applied = Counter(update.key for aggregation in trace.aggregations for update in aggregation.updates)
    assert max(applied.values(), default=1) == 1
    rejected = [rejection.update for rejection in trace.rejections]
    settled = [update for a in trace.aggregations for update in a.updates] + rejected + list(loop.strategy.unsettled())
    assert Counter(map(id, settled)) == Counter(map(id, trace.received))
    assert all(rejection.reason for rejection in trace.rejections)
    assert loop.strategy.ledger.total == len(applied)
    assert loop.strategy.ledger.aggregated == Counter(key.client for key in applied)


def versions_rise_by_one_and_no_update_is_from_the_future(loop: Loop, trace) -> None:
    assert [aggregation.version for aggregation in trace.aggregations] == list(range(1, len(trace.aggregations) + 1))
    assert loop.strategy.model.version == len(trace.aggregations)
    for aggregation in trace.aggregations:
        assert aggregation.updates
        assert aggregation.trigger in {"full", "rest", "all", "single", "enough", "deadline", "flush"}
        for update, tau in zip(aggregation.updates, aggregation.staleness, strict=True):
            assert tau == aggregation.version - 1 - update.base_version >= 0
    times = [aggregation.time for aggregation in trace.aggregations]
    assert times == sorted(times)
    assert all(torch.isfinite(vector).all() for vector in trace.vectors)


def steps_are_in_bounds(name: str, orders: Sequence[TrainOrder]) -> None:
    low, high = STEPS.get(name, (1, math.inf))
    for order in orders:
        assert (order.steps is not None) == (name in STEPS) or name == "synchronous, steps to fit"
        assert order.steps is None or low <= order.steps <= high


@pytest.mark.slow
@every_scheduler
@settings(max_examples=FLEETS, deadline=None)
@given(world=worlds())
def test_whatever_happens_every_upload_counts_once_and_nobody_is_forgotten(toys, name: str, world: dict) -> None:
    """A run ends only when all are gone for good, and then nothing waits."""
    fleet, orders = make_fleet(toys, world), []
    send = fleet.send
    fleet.send = lambda batch: (orders.extend(batch), send(batch))
    loop, trace = toys.run(make_strategy(name), fleet, events=200, check=Attention(name, world))
    each_upload_is_applied_once_or_rejected_or_still_waits(loop, trace)
    versions_rise_by_one_and_no_update_is_from_the_future(loop, trace)
    steps_are_in_bounds(name, orders)
    if loop.ended != "events":
        assert len(fleet.away) == world["clients"] + world["newcomers"]
        assert loop.strategy.waiting == 0


@pytest.mark.slow
@every_scheduler
@settings(max_examples=FLEETS // 2, deadline=None)
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
    second.run(lambda loop: "events" if len(trace.events) >= left and whole.ended == "events" else None)
    assert second.ended == whole.ended
    assert torch.equal(rest.model.vector, whole.strategy.model.vector)
    (plain, tensors), (wanted, wanted_tensors) = split(second.state_dict()), split(whole.state_dict())
    assert json.dumps(plain) == json.dumps(wanted)  # as text, where what is not a number equals itself
    assert all(torch.equal(tensors[key].nan_to_num(), wanted_tensors[key].nan_to_num()) for key in wanted_tensors)
    assert [type(event) for event in trace.events] == [type(event) for event in seen.events[len(seen.events) - left :]]


@pytest.mark.slow
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
        count += event == "line" and "strategies/schedulers/" in frame.f_code.co_filename
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
