"""FedCompass's scheduler: step counts are fitted to speed, so that clients arrive in groups.

"FedCompass: Efficient Cross-Silo Federated Learning on Heterogeneous Client Devices using a Computing Power Aware
Scheduler" (arXiv 2309.14675). With S_i seconds per step, a client gets Q_i steps, ``Q_min <= Q_i <= Q_max``, so that
it is back at its group's target time T_a; the members that report by the group's cut-off T_max are one server step::

    first report    applied alone; the client is assigned next
    by T_max        waits for its group, which is applied when all are back or T_max has come
    after T_max     late: kept for the next group that is applied, whichever it is; the client is assigned at once

    assign i        to the group with the largest Q = floor((T_a - now) / S_i) within the bounds (join), else to a new
                    one (create): Q is such that a group that is out can merge into it later,
                    Q = max over groups of floor((T_max + Q_max S_f - now) / S_i), S_f its fastest client's
    new group       T_a = now + Q S_i,  T_max = now + lambda Q S_i

The numbers in comments are the steps of that procedure. Differences from the authors' code: reports are kept in a list,
so that none overwrites another; a report counts when it is applied; cut-offs are events, not threads; the first speed
is divided by the steps that really ran; a group is gone once it was applied or missed its cut-off with nobody back, so
a client that vanished is in no group any more.

Long because all steps of the procedure work on the same groups, in their orders of targets, cut-offs and time-outs.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import NOTHING, Assignment, Decision, JobKey, Update
from strategies.core.kinds import Scheduler
from strategies.schedulers.groups import Group
from strategies.schedulers.options import (
    EndFlush,
    FirstSteps,
    FirstTask,
    JoinBound,
    LatencyFactor,
    LateTest,
    QMax,
    QMin,
    SpeedModelOption,
    SpeedMomentum,
    TimeoutFactor,
    TimeoutSeconds,
    many_steps,
)
from strategies.schedulers.speeds import NEEDS
from strategies.schedulers.speeds import speed_model as _speed_model


class Compass(Scheduler):
    """Computing-power-aware: steps are fitted to speeds, and clients arrive in groups.

    Attributes
    ----------
    speeds
        What is known of the clients' speeds.
    groups
        The open groups by number, in the order in which they were created.
    group_of
        The open group of each client that has one.
    assigned
        Q of each client's latest order.
    late
        The jobs that were reported late and are not applied yet, in that order.

    Examples
    --------
    The first to report takes 0.1 s for a step, and is expected back at 20 s. The second takes 0.15 s: it joins the
    group with the 33 steps that it can do until then.

    >>> from fedmtl.toy import toy_update
    >>> from strategies.schedulers import Compass
    >>> scheduler = Compass(q_max=100, q_min=20)
    >>> orders = scheduler.begin(range(2), now=0.0).assignments
    >>> for client, seconds in [(0, 10.0), (1, 15.0)]:
    ...     update = toy_update(client, steps=100, arrived_at=seconds)
    ...     scheduler.on_update(update, now=seconds).assignments
    (Assignment(client=0, steps=100),)
    (Assignment(client=1, steps=33),)
    >>> scheduler.group_of, scheduler.groups[0].target, scheduler.next_deadline()
    ({0: 0, 1: 0}, 20.0, 25.0)
    """

    provides = frozenset({"every-update", "groups", "assigned-steps"})
    needs = NEEDS

    def __init__(
        self,
        *,
        q_max: QMax = 100,
        q_min: QMin = None,
        latency_factor: LatencyFactor = 1.5,
        speed_momentum: SpeedMomentum = 0.9,
        speed_model: SpeedModelOption = "ema",
        first_task: FirstTask = "q_max",
        first_steps: FirstSteps = None,
        join_bound: JoinBound = 1.0,
        late_test: LateTest = "strict",
        timeout_factor: TimeoutFactor = 3.0,
        timeout_seconds: TimeoutSeconds = None,
        end_flush: EndFlush = True,
    ) -> None:
        self._q_max = q_max
        self._q_min = max(q_max // 5, 1) if q_min is None else q_min
        if self._q_min > q_max:
            raise ConfigError(f"q_min = {q_min} is above q_max = {q_max}")
        if (first_task == "explicit") != (first_steps is not None):
            raise ConfigError("first_steps is the number of steps where first_task = 'explicit': set both or neither")
        self._first = first_steps or (q_max if first_task == "q_max" else self._q_min)
        self._latency_factor = latency_factor
        self._join_limit = int(join_bound * q_max + 1e-9)
        self._inclusive = late_test == "inclusive"
        self._timeout_factor = timeout_factor
        self._timeout_seconds = timeout_seconds
        self._end_flush = end_flush
        self.speeds = _speed_model(speed_model, speed_momentum)
        self.groups: dict[int, Group] = {}
        self.group_of: dict[int, int] = {}
        self.assigned: dict[int, int] = {}
        self.late: list[JobKey] = []
        self._next_group = 0
        self._pace: dict[int, float] = {}  # seconds that a client takes for q_max steps
        self._targets: list[tuple[float, int]] = []  # (T_a, group) of the open groups, sorted
        self._cutoffs: list[tuple[float, int]] = []  # a heap of (T_max, group); groups may be gone
        self._timeouts: list[tuple[float, int, int, float]] = []  # likewise (due, client, group, time of the order)

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """A first order to every client, all with the same number of steps."""
        return Decision(assignments=tuple(self._first_task(client) for client in clients))

    def on_update(self, update: Update, now: float) -> Decision:
        """A report: the first ever, late, or in time."""
        client, first = update.client, not self.speeds.knows(update.client)
        self.speeds.observe(client, update.duration, update.steps)  # 2, 3
        self._pace[client] = self.speeds.seconds(client, self._q_max)
        if first:  # 4
            return Decision((update.key,), "single", assignments=(self._assign(client, now),))
        group = self._group(client)
        if group is None or now > group.cutoff or (self._inclusive and now == group.cutoff):  # 6
            self._leave(client)
            self.late.append(update.key)
            return Decision(assignments=(self._assign(client, now),))
        group.arrive(client, update.key)  # 5, 7
        group.note(client, self._pace[client])
        return NOTHING if group.members else self._close(group, "all", now)  # 8

    def next_deadline(self) -> float | None:
        """The earliest cut-off of an open group, or the earliest time-out of a member."""
        while self._cutoffs and self._cutoffs[0][1] not in self.groups:
            heapq.heappop(self._cutoffs)
        while self._timeouts and not self._is_out(*self._timeouts[0][1:]):
            heapq.heappop(self._timeouts)
        due = [heap[0][0] for heap in (self._cutoffs, self._timeouts) if heap]
        return min(due, default=None)

    def on_deadline(self, now: float) -> Decision:
        """Close one group whose cut-off has come, or let go of members that are overdue."""
        while (due := self.next_deadline()) is not None and due <= now:
            if self._cutoffs and self._cutoffs[0][0] == due:  # 9
                return self._close(self.groups[self._cutoffs[0][1]], "deadline", now)
            _, client, number, _ = self._timeouts[0]
            group = self.groups[number]
            self._leave(client)
            if not group.members and group.buffer:
                return self._close(group, "all", now)
        return NOTHING

    def on_idle(self, client: int, now: float) -> Decision:
        """The client joined, or its report was no use: it is assigned anew, and its group does not wait for it."""
        group = self._group(client)
        if group is not None and client in group.waiting:
            return NOTHING  # it came again without having been missed
        decision = self.on_lost(client, now)
        known = self.speeds.knows(client)
        assignment = self._assign(client, now) if known else self._first_task(client)
        return Decision(
            decision.aggregate, decision.trigger, decision.late, assignments=(*decision.assignments, assignment)
        )

    def on_lost(self, client: int, now: float) -> Decision:
        """Its group does not wait for it; what it reported before counts."""
        group = self._group(client)
        self._leave(client)
        if group is None or group.members or not group.buffer:
            return NOTHING
        return self._close(group, "all", now)

    def finish(self, now: float) -> Decision:
        """Apply the reports that are late or wait for their group."""
        keys = (*self.late, *(key for group in self.groups.values() for key in group.buffer))
        if not keys or not self._end_flush:
            return NOTHING
        late = frozenset(self.late)
        self.late.clear()
        self.groups.clear()
        self.group_of.clear()
        self._targets.clear()
        return Decision(keys, "flush", late)

    def _first_task(self, client: int) -> Assignment:
        self.assigned[client] = self._first
        return Assignment(client, self._first)

    def _close(self, group: Group, trigger: str, now: float) -> Decision:
        """Apply a group together with all late reports, and assign its members that are back."""
        self._remove(group)  # 13: its stragglers have no group, and are late
        for client in group.clients:
            del self.group_of[client]
        if not group.buffer:  # 10
            return NOTHING
        late, self.late = self.late, []  # 11
        waiting = sorted(group.waiting, key=lambda client: (self._pace[client], client))  # 15
        assignments = tuple(self._assign(client, now) for client in waiting)
        return Decision((*late, *group.buffer), trigger, frozenset(late), assignments=assignments)

    def _assign(self, client: int, now: float) -> Assignment:
        group, steps = self._group_to_join(client, now) or self._new_group(client, now)
        group.enter(client, now, self._pace[client])  # 20
        self.group_of[client] = group.number
        self.assigned[client] = steps
        self._watch(client, group, now)
        return Assignment(client, steps)

    def _group_to_join(self, client: int, now: float) -> tuple[Group, int] | None:
        """The open group with the largest admissible step count; of several, the one that was created last."""
        # Step counts rise with T_a, so that the search begins at the last group that can be admissible.
        latest = now + self.speeds.seconds(client, self._join_limit + 1)
        best, most = -1, self._q_min
        for place in range(bisect.bisect_right(self._targets, (latest, math.inf)) - 1, -1, -1):
            target, number = self._targets[place]
            q = self.speeds.steps(client, target - now)  # 18
            if q < most:
                break
            if q <= self._join_limit:
                best, most = max(best, number), q  # 19
        return None if best < 0 else (self.groups[best], most)

    def _new_group(self, client: int, now: float) -> tuple[Group, int]:
        steps = self._steps_of_new_group(client, now)
        seconds = self.speeds.seconds(client, steps)
        group = Group(self._next_group, now + seconds, now + self._latency_factor * seconds)  # 24
        self._next_group += 1
        self.groups[group.number] = group
        bisect.insort(self._targets, (group.target, group.number))
        heapq.heappush(self._cutoffs, (group.cutoff, group.number))
        return group, steps

    def _steps_of_new_group(self, client: int, now: float) -> int:
        steps = -1  # 21
        for group in self.groups.values():
            if now < group.cutoff:  # 22
                back = group.cutoff + self._pace[group.fastest(self._pace)]
                q = self.speeds.steps(client, back - now)
                if q <= self._q_max:
                    steps = max(steps, q)
        return self._q_max if steps < 0 else max(steps, self._q_min)  # 17, 23

    def _watch(self, client: int, group: Group, now: float) -> None:
        """Note when a member is overdue, if that is before its group's cut-off."""
        seconds = self._timeout_seconds or self._timeout_factor * self._latency_factor * self._pace[client]
        if 0 < seconds < group.cutoff - now:
            heapq.heappush(self._timeouts, (now + seconds, client, group.number, now))

    def _is_out(self, client: int, number: int, start: float) -> bool:
        """Whether the client is still out with the order of that time."""
        return number in self.groups and self.groups[number].members.get(client) == start

    def _group(self, client: int) -> Group | None:
        number = self.group_of.get(client)
        return None if number is None else self.groups[number]

    def _leave(self, client: int) -> None:
        """Take the client out of its group; a group that nobody is in and nobody reported to is gone."""
        number = self.group_of.pop(client, None)
        if number is None:
            return
        group = self.groups[number]
        group.leave(client)
        if not group.members and not group.buffer:
            self._remove(group)

    def _remove(self, group: Group) -> None:
        del self.groups[group.number]
        del self._targets[bisect.bisect_left(self._targets, (group.target, group.number))]

    def remarks(self, clients: int) -> Sequence[str]:
        """Orders of very many steps."""
        return many_steps("q_max", self._q_max)

    def state_dict(self) -> dict[str, Any]:
        """Speeds, groups, late reports and step counts."""
        return {
            "speeds": self.speeds.state_dict(),
            "groups": [group.state_dict() for group in self.groups.values()],
            "assigned": list(self.assigned.items()),
            "late": [list(key) for key in self.late],
            "next_group": self._next_group,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.speeds.load_state_dict(state["speeds"])
        self.assigned = {int(client): int(steps) for client, steps in state["assigned"]}
        self._pace = {c: self.speeds.seconds(c, self._q_max) for c in self.assigned if self.speeds.knows(c)}
        groups = [Group.restore(entry, self._pace) for entry in state["groups"]]
        self.groups = {group.number: group for group in groups}
        self.group_of = {client: group.number for group in groups for client in group.clients}
        self.late = [JobKey(int(client), int(job)) for client, job in state["late"]]
        self._next_group = int(state["next_group"])
        self._targets = sorted((group.target, group.number) for group in groups)
        self._cutoffs = sorted((group.cutoff, group.number) for group in groups)
        self._timeouts = []
        for group in groups:
            for client, start in group.members.items():
                self._watch(client, group, start)
