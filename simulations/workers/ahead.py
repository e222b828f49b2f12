"""Which jobs go out next, and how many at a time."""

from __future__ import annotations

import heapq
import math

from fedmtl.protocol import JobKey
from simulations.workers.base import Job

COHORT = 16
"""Most jobs in one message: enough to make its cost small, few enough to keep all workers busy."""


class Waiting:
    """Jobs that were not sent out yet, in the order of their arrival (virtual time).

    Jobs that arrive together keep the order of their submission. A job that brought its worker down goes out alone.
    """

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Job] = {}
        self._alone: set[JobKey] = set()
        self._heap: list[tuple[float, int, JobKey]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: JobKey) -> bool:
        return key in self._jobs

    def add(self, job: Job, *, alone: bool = False) -> None:
        """Take a job; `alone` keeps others out of its cohort."""
        key = job.order.key
        self._jobs[key] = job
        if alone:
            self._alone.add(key)
        self._push(job.arrival, key)

    def hasten(self, key: JobKey) -> None:
        """Put a job first, whatever its arrival: it is wanted now."""
        self._push(-math.inf, key)

    def remove(self, key: JobKey) -> Job:
        """Take one job out of those that wait."""
        self._alone.discard(key)
        return self._jobs.pop(key)

    def cohort(self, size: int) -> list[Job]:
        """Take out the next jobs, at least one and at most `size`; there must be one."""
        jobs = [self._pop()]
        if jobs[0].order.key in self._alone:
            self._alone.discard(jobs[0].order.key)
            return jobs
        while self._jobs and len(jobs) < size and self._first() not in self._alone:
            jobs.append(self._pop())
        return jobs

    def _first(self) -> JobKey:
        """The next job's key. Entries of jobs that are gone are dropped on the way."""
        while self._heap[0][2] not in self._jobs:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def _pop(self) -> Job:
        job = self._jobs.pop(self._first())
        heapq.heappop(self._heap)
        return job

    def _push(self, arrival: float, key: JobKey) -> None:
        heapq.heappush(self._heap, (arrival, self._sequence, key))
        self._sequence += 1


def cohort_size(waiting: int, messages: int) -> int:
    """Jobs to send in one message, so that what waits is spread over so many messages."""
    return max(1, min(COHORT, math.ceil(waiting / messages)))
