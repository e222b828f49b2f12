"""Training in this process, when an update is asked for and not before."""

from __future__ import annotations

from collections.abc import Sequence

from clients.trainer import LocalTrainer
from fedmtl.protocol import JobKey, Update
from simulations.workers.base import Job, Workers


class InlineWorkers(Workers):
    """Trains one order after the other with one trainer. Orders that are never asked for are never trained."""

    def __init__(self, trainer: LocalTrainer) -> None:
        self._trainer = trainer
        self._jobs: dict[JobKey, Job] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs that may be asked for later."""
        for job in jobs:
            self._jobs[job.order.key] = job

    def result(self, key: JobKey) -> Update:
        """Train the job now."""
        job = self._jobs.pop(key)
        return self._trainer.train(job.order, job.observed)

    def discard(self, key: JobKey) -> None:
        """Forget a job, which is not trained then."""
        self._jobs.pop(key, None)
