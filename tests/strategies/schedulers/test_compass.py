"""FedCompass's scheduler: its golden traces, and what holds over random fleets.

Long because both golden traces are written out, event by event.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import Assignment, Deadline, Decision, JobKey
from fedmtl.randomness import derive_seed
from strategies.aggregators import GradientAggregator
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.schedulers import Compass
from strategies.weightings import Uniform

A, B = 0, 1


def strategy_of(scheduler: Compass) -> Strategy:
    return Strategy(scheduler, GradientAggregator(Uniform()))


def fleet_of(toys, seconds: Callable[[int, int, int], float], clients: int, quirks=None):
    """A fleet whose jobs take `seconds(client, job, steps)`."""

    class Paced(toys.Fleet):
        def send(self, orders) -> None:
            for order in orders:
                steps = order.steps
                self.duration = lambda client, job, steps=steps: seconds(client, job, steps) * 2 / steps
                super().send([order])

    return Paced(clients, lambda client, job: 0.0, quirks)


def run(toys, scheduler: Compass, seconds: Callable[[int, int, int], float], clients: int, **limits):
    """The finished loop, what happened, and the open groups after each event."""
    seen = []

    def look(loop: Loop) -> None:
        groups = {n: (g.target, g.cutoff, set(g.members), set(g.waiting)) for n, g in scheduler.groups.items()}
        seen.append((loop.fleet.now(), groups, dict(scheduler.assigned)))

    quirks = limits.pop("quirks", None)
    loop, trace = toys.run(strategy_of(scheduler), fleet_of(toys, seconds, clients, quirks), check=look, **limits)
    return loop, trace, seen


class TestGoldenTraces:
    """m = 2, Q from 20 to 100, lambda = 1.2, mu = 0.9; A takes 0.1 s a step, B 0.12 s and then longer."""

    TIMES = {(A, 0): 10.0, (B, 0): 12.0, (B, 1): 11.0}  # noqa: RUF012

    def run(self, toys, second_of_b: float, events: int):
        scheduler = Compass(q_min=20, q_max=100, latency_factor=1.2)

        def seconds(client: int, job: int, steps: int) -> float:
            if (client, job) == (B, 2):
                return second_of_b
            return self.TIMES.get((client, job), 0.1 * steps)

        loop, trace, seen = run(toys, scheduler, seconds, 2, events=events)
        return scheduler, loop, trace, seen

    def test_groups_steps_and_cutoffs(self, toys) -> None:
        scheduler, _, _, seen = self.run(toys, 1000.0, 7)
        assert [time for time, *_ in seen] == pytest.approx([10, 12, 20, 22, 23, 32, 34])
        assert seen[0][1][0][:2] == pytest.approx((20, 22))
        assert seen[0][1][0][2] == {A}
        assert seen[0][2][A] == 100
        assert seen[1][1][0][2] == {A, B}
        assert seen[1][2][B] == 66
        assert seen[2][1][0][2:] == ({B}, {A})
        assert list(seen[3][1]) == [1]
        assert seen[3][1][1][:2] == pytest.approx((32, 34))
        assert seen[3][1][1][2] == {A}
        assert seen[4][1][1][2] == {A, B}
        assert seen[4][2][B] == 55
        assert scheduler.speeds.seconds(A, 1) == pytest.approx(0.1)
        assert scheduler.speeds.seconds(B, 1) == pytest.approx(0.162)

    def test_steps_of_the_server(self, toys) -> None:
        _, loop, trace, _ = self.run(toys, 1000.0, 7)
        steps = [(a.trigger, [u.client for u in a.updates], a.staleness) for a in trace.aggregations]
        assert steps == [
            ("single", [A], (0,)),
            ("single", [B], (1,)),
            ("deadline", [A], (1,)),
            ("deadline", [B, A], (1, 0)),
        ]
        assert trace.aggregations[3].late == {JobKey(B, 1)}
        assert loop.strategy.model.version == 4
        assert loop.strategy.ledger.total == 5

    def test_a_late_report_is_not_overwritten_by_the_next_of_its_client(self, toys) -> None:
        """The variant: B reports again at 31.9, and at 32 all members are back."""
        _, loop, trace, _ = self.run(toys, 8.9, 7)
        last = trace.aggregations[-1]
        assert last.time == 32.0
        assert last.trigger == "all"
        assert [update.key for update in last.updates] == [JobKey(B, 1), JobKey(B, 2), JobKey(A, 2)]
        assert last.staleness == (1, 0, 0)
        assert loop.strategy.ledger.total == 6

    def test_call_by_call(self, toys) -> None:
        """Every figure of the trace: S, Q, T_a and T_max, version numbers being the loop's."""
        scheduler = Compass(q_min=20, q_max=100, latency_factor=1.2)
        started, jobs, steps = {A: 0.0, B: 0.0}, {A: 0, B: 0}, {A: 100, B: 100}

        def report(client: int, now: float):
            times = {"dispatched_at": started[client], "arrived_at": now}
            decision = scheduler.on_update(toys.make_update(client, jobs[client], steps=steps[client], **times), now)
            return given(decision, now)

        def given(decision, now: float):
            for assignment in decision.assignments:
                jobs[assignment.client] += 1
                started[assignment.client], steps[assignment.client] = now, assignment.steps
            return decision

        def group(number: int) -> tuple[float, ...]:
            return scheduler.groups[number].target, scheduler.groups[number].cutoff

        assert scheduler.begin([A, B], 0.0).assignments == (Assignment(A, 100), Assignment(B, 100))
        first = report(A, 10.0)
        assert (first.aggregate, first.assignments) == ((JobKey(A, 0),), (Assignment(A, 100),))
        assert scheduler.speeds.seconds(A, 1) == pytest.approx(0.1)
        assert group(0) == pytest.approx((20, 22))
        second = report(B, 12.0)
        assert (second.aggregate, second.assignments) == ((JobKey(B, 0),), (Assignment(B, 66),))
        assert scheduler.speeds.seconds(B, 1) == pytest.approx(0.12)
        assert group(0) == pytest.approx((20, 22))
        assert report(A, 20.0) == Decision()
        assert scheduler.next_deadline() == pytest.approx(22)
        third = given(scheduler.on_deadline(22.0), 22.0)
        assert (third.aggregate, third.assignments) == ((JobKey(A, 1),), (Assignment(A, 100),))
        assert group(1) == pytest.approx((32, 34))
        late = report(B, 23.0)
        assert (late.aggregate, late.assignments) == ((), (Assignment(B, 55),))
        assert scheduler.speeds.seconds(B, 1) == pytest.approx(0.162)
        assert group(1) == pytest.approx((32, 34))
        assert report(A, 32.0) == Decision()
        assert scheduler.next_deadline() == pytest.approx(34)
        fourth = given(scheduler.on_deadline(34.0), 34.0)
        assert (fourth.aggregate, fourth.late) == ((JobKey(B, 1), JobKey(A, 2)), {JobKey(B, 1)})
        assert scheduler.speeds.seconds(A, 1) == pytest.approx(0.1)


class Watched(Compass):
    """Checks each assignment against the rules, written out anew."""

    def _assign(self, client: int, now: float) -> Assignment:
        open_before = list(self.groups.values())
        S = self.speeds.seconds(client, 1)
        fits = {}
        for group in open_before:
            q = math.floor((group.target - now) / S + 1e-9)
            if self._q_min <= q <= self._join_limit:
                fits[group.number] = q
        steps_to_create = self._steps_to_create(S, now)
        out = super()._assign(client, now)
        group = self.groups[self.group_of[client]]
        assert client in group.members
        assert out.steps == self.assigned[client]
        if fits:
            assert group in open_before
            assert out.steps == max(fits.values())
            assert group.number == max(number for number, q in fits.items() if q == out.steps)
            assert self._q_min <= out.steps <= self._join_limit
            assert now + out.steps * S <= group.target + 1e-6
            assert now + (out.steps + 1) * S > group.target - 1e-6
        else:
            assert group not in open_before
            assert self._q_min <= out.steps <= self._q_max
            assert out.steps == steps_to_create
            assert group.target == pytest.approx(now + out.steps * S)
            assert now <= group.target <= group.cutoff
            expected = self._latency_factor * (group.target - now)
            assert group.cutoff - now == pytest.approx(expected, rel=1e-9, abs=1e-9)
            assert open_before or out.steps == self._q_max
        return out

    def _steps_to_create(self, S: float, now: float) -> int:
        """Steps until the latest return of some group's fastest client from one more full task."""
        counts = [-1]
        for group in self.groups.values():
            if now < group.cutoff:
                S_f = min(self.speeds.seconds(other, 1) for other in group.clients)
                counts.append(math.floor((group.cutoff + S_f * self._q_max - now) / S + 1e-9))
        most = max(count for count in counts if count <= self._q_max)
        return self._q_max if most < 0 else max(most, self._q_min)


@st.composite
def worlds(draw: st.DrawFn) -> dict:
    return {
        "clients": draw(st.integers(1, 8)),
        "seed": draw(st.integers(0, 2**32)),
        "spread": draw(st.sampled_from([1, 4, 30])),
        "jitter": draw(st.sampled_from([0, 10, 200])),
        "overhead": draw(st.sampled_from([0.0, 3.0])),
        "losses": draw(st.sampled_from([0, 100, 400])),
        "for_good": draw(st.sampled_from([0, 500])),
        "options": {
            "q_min": draw(st.sampled_from([None, 1, 10])),
            "q_max": draw(st.sampled_from([10, 40, 100])),
            "latency_factor": draw(st.sampled_from([1.01, 1.2, 3.0])),
            "first_task": draw(st.sampled_from(["q_max", "q_min"])),
            "join_bound": draw(st.sampled_from([1.0, 1.2])),
            "late_test": draw(st.sampled_from(["strict", "inclusive"])),
            "timeout_factor": draw(st.sampled_from([0.0, 0.3, 3.0])),
        },
    }


def seconds_in(world: dict) -> Callable[[int, int, int], float]:
    def seconds(client: int, job: int, steps: int) -> float:
        pace = 0.25 * (1 + derive_seed(world["seed"], "pace", client) % world["spread"])
        jitter = 1.0 + derive_seed(world["seed"], "jitter", client, job) % (world["jitter"] + 1) / 100
        return world["overhead"] + pace * steps * jitter

    return seconds


def quirks_in(toys, world: dict):
    def outage(client: int, job: int) -> tuple[float, float | None] | None:
        if derive_seed(world["seed"], "lost", client, job) % 1000 >= world["losses"]:
            return None
        stays = derive_seed(world["seed"], "for good", client, job) % 1000 < world["for_good"]
        return 2.5, None if stays else 7.5

    return toys.Quirks(outage)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(world=worlds())
def test_assignments_follow_the_rules_and_groups_are_in_order(toys, world: dict) -> None:
    scheduler = Watched(**world["options"])
    closed: Counter[int] = Counter()
    before: set[int] = set()

    def check(loop: Loop) -> None:
        members = [client for group in scheduler.groups.values() for client in group.members]
        waiting = [client for group in scheduler.groups.values() for client in group.waiting]
        assert len(members) + len(waiting) == len({*members, *waiting}) == len(scheduler.group_of)
        in_flight = {client for client, *_ in loop.strategy.state_dict()["in_flight"]}
        assert {*members} <= in_flight
        assert not in_flight & {*waiting}
        due = scheduler.next_deadline()
        for number, group in scheduler.groups.items():
            assert group.members or group.cutoff <= loop.fleet.now()
            assert due is not None
            assert due <= group.cutoff
            assert all(scheduler.group_of[client] == number for client in group.clients)
        closed.update(before - set(scheduler.groups))
        before.clear()
        before.update(scheduler.groups)
        kept = len(scheduler.late) + sum(len(group.buffer) for group in scheduler.groups.values())
        assert kept == loop.strategy.waiting

    fleet = fleet_of(toys, seconds_in(world), world["clients"], quirks_in(toys, world))
    loop, trace = toys.run(strategy_of(scheduler), fleet, events=200, check=check)
    assert max(closed.values(), default=1) == 1
    # Applied exactly once; the last step leaves nothing behind.
    applied = [update.key for aggregation in trace.aggregations for update in aggregation.updates]
    assert Counter(applied) == Counter(update.key for update in trace.received)
    assert loop.strategy.waiting == 0
    assert loop.strategy.ledger.total == len(applied)
    for aggregation in trace.aggregations:
        keys = [update.key for update in aggregation.updates]
        assert keys[: len(aggregation.late)] == [key for key in keys if key in aggregation.late]
        assert aggregation.trigger != "single" or len(keys) == 1


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(world=worlds(), factor=st.sampled_from([0.125, 4.0, 1024.0]))
def test_a_change_of_the_unit_of_time_changes_times_only(toys, world: dict, factor: float) -> None:
    world = world | {"losses": 0}  # outages have times of their own
    one, scaled = Compass(**world["options"]), Compass(**world["options"])
    times = seconds_in(world)
    _, first, seen = run(toys, one, times, world["clients"], events=120)
    _, second, later = run(toys, scaled, lambda *job: factor * times(*job), world["clients"], events=120)
    for client in range(world["clients"]):
        assert scaled.speeds.knows(client) == one.speeds.knows(client)
        if one.speeds.knows(client):
            assert scaled.speeds.seconds(client, 1) == pytest.approx(factor * one.speeds.seconds(client, 1))
    assert [a.staleness for a in first.aggregations] == [a.staleness for a in second.aggregations]
    for (now, groups, steps), (then, others, same) in zip(seen, later, strict=True):
        assert then == pytest.approx(factor * now)
        assert steps == same
        assert list(groups) == list(others)
        for number, (target, cutoff, members, waiting) in groups.items():
            assert others[number][:2] == pytest.approx((factor * target, factor * cutoff))
            assert others[number][2:] == (members, waiting)


@pytest.mark.parametrize("clients", [1, 2, 5])
def test_equal_clients_are_single_once_then_all_in_one_group(toys, clients: int) -> None:
    scheduler = Compass()
    _, trace, _ = run(toys, scheduler, lambda client, job, steps: 0.5 * steps, clients, events=6 * clients)
    singles, first, *later = trace.aggregations[:clients], *trace.aggregations[clients:]
    assert [(a.trigger, a.staleness) for a in singles] == [("single", (lag,)) for lag in range(clients)]
    assert first.trigger == "all"
    assert first.staleness == tuple(reversed(range(clients)))
    assert len(later) == 4
    for aggregation in later:
        assert aggregation.staleness == (0,) * clients
        assert {update.client for update in aggregation.updates} == set(range(clients))
        assert {update.steps for update in aggregation.updates} == {100}
    assert not any(a.late for a in trace.aggregations)


def test_one_client_alone_is_its_own_group(toys) -> None:
    jitter = [1.0, 1.3, 0.9, 1.1, 0.9, 1.2]
    _, trace, _ = run(toys, Compass(), lambda client, job, steps: 0.1 * steps * jitter[job % 6], 1, events=6)
    assert [a.trigger for a in trace.aggregations] == ["single"] + ["all"] * 5
    assert all(a.staleness == (0,) for a in trace.aggregations)
    assert all(update.steps == 100 for update in trace.received)


@pytest.mark.parametrize(("late_test", "late"), [("strict", False), ("inclusive", True)])
@pytest.mark.parametrize("after", [0.0, 1e-9, 0.125])
def test_an_arrival_at_the_cutoff_is_in_time_and_any_later_one_is_late(
    toys, late_test: str, late: bool, after: float
) -> None:
    """The cut-off of A's group, of 16 steps of 1 s with lambda = 2, is at 16 + 32."""
    scheduler = Compass(q_max=16, latency_factor=2.0, late_test=late_test)

    def seconds(client: int, job: int, steps: int) -> float:
        return {(A, 1): 32.0 + after, (B, 0): 18.0, (B, 1): 13.0}.get((client, job), 1.0 * steps)

    _, trace, seen = run(toys, scheduler, seconds, 2, events=5)
    assert seen[0][1][0][:2] == (32.0, 48.0)
    joined = [time for time, groups, _ in seen if groups.get(0, (0, 0, set()))[2] == {A, B}]
    assert joined == [18.0]
    report = next(update for update in trace.received if update.key == (A, 1))
    group = next(a for a in trace.aggregations if JobKey(B, 1) in {update.key for update in a.updates})
    if late or after:
        assert (group.trigger, group.time) == ("deadline", 48.0)
        # A report at the cut-off comes before the deadline of that instant, and goes with the group it was late for.
        assert group.late == (set() if after else {report.key})
        assert (report.key in {update.key for update in group.updates}) is not bool(after)
    else:
        assert (group.trigger, group.time) == ("all", 48.0)
        assert report.key in {update.key for update in group.updates}
        assert not any(isinstance(event, Deadline) for event in trace.events)


def test_a_client_that_vanishes_leaves_no_group_behind(toys) -> None:
    """Nobody says that it is gone: its group waits to the cut-off, and the next one does not know it."""
    scheduler = Compass(q_max=10)

    def seconds(client: int, job: int, steps: int) -> float:
        return 1e9 if (client, job) == (B, 1) else 1.0 * steps

    _, trace, seen = run(toys, scheduler, seconds, 2, events=40)
    assert any(B in groups[0][2] for _, groups, _ in seen if 0 in groups)
    assert [a.trigger for a in trace.aggregations][2:4] == ["deadline", "all"]
    assert all(B not in group[2] for _, groups, _ in seen for n, group in groups.items() if n > 0)
    assert len(seen[-1][1]) == 1


def test_a_member_that_is_overdue_is_not_waited_for_until_the_cutoff(toys) -> None:
    def seconds(client: int, job: int, steps: int) -> float:
        return 1e9 if (client, job) == (B, 1) else 1.0 * steps

    scheduler = Compass(q_max=10, latency_factor=10.0, timeout_seconds=15.0)
    _, trace, _ = run(toys, scheduler, seconds, 2, events=6)
    step = trace.aggregations[2]
    assert (step.trigger, step.time) == ("all", 25.0)  # 10 + 15, long before the cut-off at 110


def test_a_group_that_missed_its_cutoff_with_nobody_back_leaves_its_reports_to_the_next(toys) -> None:
    def seconds(client: int, job: int, steps: int) -> float:
        return (3.0 if job == 1 else 1.0) * steps

    _, trace, seen = run(toys, Compass(q_max=10, speed_momentum=0.5), seconds, 2, events=8)
    assert [(type(e).__name__) for e in trace.events[2:5]] == ["Deadline", "Arrival", "Arrival"]
    assert not seen[2][1]
    after = trace.aggregations[2]
    assert after.late == {JobKey(A, 1), JobKey(B, 1)}
    assert [update.job for update in after.updates] == [1, 1, 2, 2]


def test_a_slow_client_opens_a_group_that_the_fast_one_can_merge_into(toys) -> None:
    """A: 1 s a step, B: 10 s. B cannot join A's group with 20 steps; it gets what A is back for after one more task."""
    scheduler = Compass(latency_factor=1.5)
    seconds = {A: 1.0, B: 10.0}
    _, trace, seen = run(toys, scheduler, lambda client, job, steps: seconds[client] * steps, 2, events=40)
    creation = next(i for i, (_, _, steps) in enumerate(seen) if steps[B] != 100)
    now, groups, steps = seen[creation]
    assert now == 1000.0
    others = [group for group in groups.values() if B not in group[2]]
    assert steps[B] == max(20, max(math.floor((cutoff + 100 - now) / 10) for _, cutoff, *_ in others))
    assert any({A, B} <= {u.client for u in a.updates} for a in trace.aggregations[creation:])


@pytest.mark.parametrize("targets", [(100.0, 100.25), (100.25, 100.0), (100.0, 100.0)], ids=str)
def test_of_groups_with_as_many_steps_the_one_created_last_is_joined(toys, targets: tuple[float, float]) -> None:
    scheduler = Compass(q_max=50)
    scheduler.load_state_dict(
        {
            "speeds": {"seconds": [[client, 1.0] for client in range(3)]},
            "groups": [
                {"number": n, "target": t, "cutoff": 150.0 + n, "members": [[n, 0.0]], "waiting": [], "buffer": []}
                for n, t in enumerate(targets)
            ],
            "assigned": [[client, 50] for client in range(3)],
            "late": [],
            "next_group": 2,
        }
    )
    assert scheduler.on_idle(2, 80.0).assignments == (Assignment(2, 20),)
    assert scheduler.group_of[2] == 1


@pytest.mark.parametrize(("join_bound", "steps", "groups"), [(1.0, 10, 2), (1.2, 11, 1)])
def test_a_client_may_join_with_more_than_q_max_steps_if_the_bound_says_so(
    toys, join_bound: float, steps: int, groups: int
) -> None:
    scheduler = Compass(q_max=10, join_bound=join_bound)
    scheduler.begin([A, B], 0.0)
    scheduler.on_update(toys.make_update(A, steps=10, arrived_at=10.0), 10.0)
    decision = scheduler.on_update(toys.make_update(B, steps=10, dispatched_at=1.0, arrived_at=10.0), 10.0)
    assert decision.assignments == (Assignment(B, steps),)
    assert len(scheduler.groups) == groups


def test_the_last_step_takes_all_that_is_kept_or_nothing(toys) -> None:
    def seconds(client: int, job: int, steps: int) -> float:
        return (1.0 + client) * steps * (4.0 if (client, job) == (2, 1) else 1.0)

    kept = []
    for events in range(4, 16):
        for flush in (True, False):
            loop, trace, _ = run(toys, Compass(q_max=10, end_flush=flush), seconds, 3, events=events)
            settled = sum(len(a.updates) for a in trace.aggregations)
            assert settled + loop.strategy.waiting == len(trace.received)
            assert flush is False or loop.strategy.waiting == 0
            kept.append(loop.strategy.waiting if not flush else trace.aggregations[-1].trigger == "flush")
    assert [bool(n) for n in kept[1::2]] == kept[::2]
    assert True in kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q_min": 30, "q_max": 20}, "q_min = 30 is above q_max = 20"),
        ({"first_task": "explicit"}, "first_steps"),
        ({"first_steps": 3}, "first_steps"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compass(**options)


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 100), ({"first_task": "q_min"}, 20), ({"first_task": "explicit", "first_steps": 40}, 40), ({"q_max": 3}, 3)],
    ids=str,
)
def test_the_first_task(options: dict, steps: int) -> None:
    decision = Compass(**options).begin([4, 7], 0.0)
    assert decision.assignments == (Assignment(4, steps), Assignment(7, steps))
