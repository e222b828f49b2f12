"""Training when a job begins, so that its outcome is known before its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedmtl.protocol import JobKey, Update
from simulations.workers.base import Job, Workers


class AtOnce(Workers):
    """Has other workers train every job when it is submitted, and shows its outcome at once.

    Parameters
    ----------
    workers
        Train.
    on_outcome_known
        Is called with every update, in the order of the jobs; `result` gives the same.
    """

    def __init__(self, workers: Workers, on_outcome_known: Callable[[Update], None]) -> None:
        self._workers = workers
        self._on_outcome_known = on_outcome_known
        self._made: dict[JobKey, Update] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Train the jobs, and show their outcomes."""
        self._workers.submit(jobs)
        for job in jobs:
            key = job.order.key
            self._made[key] = self._workers.result(key)
            self._on_outcome_known(self._made[key])

    def result(self, key: JobKey) -> Update:
        """The update of a submitted job."""
        return self._made.pop(key)

    def discard(self, key: JobKey) -> None:
        """A submitted job will never be asked for."""
        self._made.pop(key, None)

    def close(self) -> None:
        """Close the other workers."""
        self._workers.close()
