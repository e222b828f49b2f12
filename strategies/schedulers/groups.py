"""Arrival groups: clients that are given so many steps that they report at about the same time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any

from fedmtl.protocol import JobKey


class Group:
    """One arrival group.

    Attributes
    ----------
    number
        Later groups have larger numbers.
    target
        T_a, when its members are expected, seconds.
    cutoff
        T_max, after which a member is late.
    members
        Who is still out, each with the time of its order.
    waiting
        Who reported in time and waits, in the order of the reports.
    buffer
        The jobs that were reported in time, in that order.

    Examples
    --------
    One of two members is back, and waits for the other:

    >>> from fedmtl.protocol import JobKey
    >>> from strategies.schedulers.groups import Group
    >>> group = Group(number=0, target=10.0, cutoff=15.0)
    >>> group.enter(3, now=0.0, pace=2.0)
    >>> group.enter(4, now=0.0, pace=1.0)
    >>> group.arrive(4, JobKey(4, job=0))
    >>> list(group.members), list(group.waiting), group.buffer
    ([3], [4], [JobKey(client=4, job=0)])
    >>> group.fastest({3: 2.0, 4: 1.0})
    4
    """

    __slots__ = ("_fastest", "buffer", "cutoff", "members", "number", "target", "waiting")

    def __init__(self, number: int, target: float, cutoff: float) -> None:
        self.number = number
        self.target = target
        self.cutoff = cutoff
        self.members: dict[int, float] = {}
        self.waiting: dict[int, None] = {}
        self.buffer: list[JobKey] = []
        self._fastest: list[tuple[float, int]] = []  # a heap of (pace, client), some of them out of date

    def enter(self, client: int, now: float, pace: float) -> None:
        """The client was given an order and is to report with this group."""
        self.members[client] = now
        self.note(client, pace)

    def note(self, client: int, pace: float) -> None:
        """How fast the client is now: the seconds that it takes for some fixed work."""
        heapq.heappush(self._fastest, (pace, client))

    def fastest(self, pace: Mapping[int, float]) -> int:
        """The fastest client of the group, whether it is out or waits; `pace` has each one's latest figure."""
        heap = self._fastest
        while True:
            noted, client = heap[0]
            if (client in self.members or client in self.waiting) and pace[client] == noted:
                return client
            heapq.heappop(heap)

    def arrive(self, client: int, key: JobKey) -> None:
        """A member reported in time and waits."""
        del self.members[client]
        self.waiting[client] = None
        self.buffer.append(key)

    def leave(self, client: int) -> None:
        """The client is not expected any more, and no longer waits; what it reported stays."""
        self.members.pop(client, None)
        self.waiting.pop(client, None)

    @property
    def clients(self) -> Iterator[int]:
        """The members of the group, and then those who wait in it."""
        yield from self.members
        yield from self.waiting

    def state_dict(self) -> dict[str, Any]:
        """Everything but the order of speeds."""
        return {
            "number": self.number,
            "target": self.target,
            "cutoff": self.cutoff,
            "members": [[client, start] for client, start in self.members.items()],
            "waiting": list(self.waiting),
            "buffer": [list(key) for key in self.buffer],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], pace: Mapping[int, float]) -> Group:
        """The group that `state_dict` described."""
        group = cls(int(state["number"]), float(state["target"]), float(state["cutoff"]))
        group.members = {int(client): float(start) for client, start in state["members"]}
        group.waiting = dict.fromkeys(int(client) for client in state["waiting"])
        group.buffer = [JobKey(int(client), int(job)) for client, job in state["buffer"]]
        for client in group.clients:
            group.note(client, pace[client])
        return group
