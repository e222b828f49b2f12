"""Which tasks the waiting updates carry, and which tasks are alive."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any


class TaskCoverage:
    """Learns from the updates who owns which task; what happens to an update costs O(tasks).

    A task is alive as long as a client that is known to own it is there, and while no owner was met yet.

    Parameters
    ----------
    tasks
        How many tasks there are.

    Examples
    --------
    Two updates carry both tasks, but the first of them alone does not, unless the other task's
    owner is gone:

    >>> from strategies.schedulers.coverage import TaskCoverage
    >>> coverage = TaskCoverage(tasks=2)
    >>> coverage.add(client=5, tasks=[0], place=0)
    >>> coverage.add(client=6, tasks=[1], place=1)
    >>> coverage.complete(count=2), coverage.complete(count=1)
    (True, False)
    >>> coverage.leave(6)
    >>> coverage.complete(count=1)
    True
    """

    def __init__(self, tasks: int) -> None:
        self._waiting: list[tuple[int, ...]] = []  # the tasks of each waiting update
        self._carried = [0] * tasks  # waiting updates that carry a task
        self._known: dict[int, tuple[int, ...]] = {}  # client -> its tasks
        self._there: set[int] = set()  # known clients that are not gone
        self._owners = [0] * tasks  # how many of these own a task
        self._met = [False] * tasks  # whether any client ever did

    def complete(self, count: int) -> bool:
        """Whether the waiting updates, or the first `count` of them if there are more, carry every task alive."""
        carried = self._carried
        if count < len(self._waiting):
            first = set(itertools.chain.from_iterable(self._waiting[:count]))
            carried = [int(task in first) for task in range(len(carried))]
        tasks = zip(carried, self._owners, self._met, strict=True)
        return all(waiting or (met and not owners) for waiting, owners, met in tasks)

    def add(self, client: int, tasks: Sequence[int], place: int) -> None:
        """An update of this client waits, at this place among the others."""
        self.leave(client)
        self._known[client] = tuple(tasks)
        self.enter(client)
        self._waiting.insert(place, tuple(tasks))
        for task in tasks:
            self._met[task] = True
            self._carried[task] += 1

    def take(self, count: int) -> None:
        """So many of the waiting updates, the first ones, are aggregated."""
        for tasks in self._waiting[:count]:
            for task in tasks:
                self._carried[task] -= 1
        del self._waiting[:count]

    def leave(self, client: int) -> None:
        """The client is gone."""
        if client in self._there:
            self._there.remove(client)
            self._count(client, -1)

    def enter(self, client: int) -> None:
        """The client is there, perhaps again."""
        if client in self._known and client not in self._there:
            self._there.add(client)
            self._count(client, 1)

    def _count(self, client: int, change: int) -> None:
        for task in self._known[client]:
            self._owners[task] += change

    def state_dict(self) -> dict[str, Any]:
        """What waits, who owns what, and who is there."""
        return {
            "waiting": [list(tasks) for tasks in self._waiting],
            "known": [[client, list(tasks)] for client, tasks in self._known.items()],
            "there": sorted(self._there),
            "met": list(self._met),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._waiting = [tuple(map(int, tasks)) for tasks in state["waiting"]]
        self._known = {int(client): tuple(map(int, tasks)) for client, tasks in state["known"]}
        self._met = [bool(met) for met in state["met"]]
        self._there = set()
        self._carried, self._owners = [0] * len(self._met), [0] * len(self._met)
        for tasks in self._waiting:
            for task in tasks:
                self._carried[task] += 1
        for client in map(int, state["there"]):
            self.enter(client)
