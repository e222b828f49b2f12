"""Training on Ray: long-lived actors, on this machine or on a cluster, that take cohorts of jobs.

The only module that imports Ray, and only when workers are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmtl.data.federated import FederatedData
from fedmtl.errors import UserError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import JobKey, Update
from simulations.workers.ahead import COHORT, Waiting, cohort_size
from simulations.workers.base import Job, Workers
from simulations.workers.cluster import Cluster
from simulations.workers.remote import CohortTrainer, Result, pack_data, pack_jobs, unpack_update
from simulations.workers.vectors import SharedVectors

_EAGER = 2
"""New jobs per actor after which idle actors are given some before anything is asked for."""


class TrainingError(RuntimeError):
    """A job could not be trained; the message names client and job."""


class RayWorkers(Workers):
    """Trains jobs on Ray actors, ahead of time, in the order of their arrival.

    Every actor holds a trainer and the clients' data, trains on one thread, and gets cohorts of jobs, cut so that all
    actors are busy. Neither the number of actors nor the cut changes a result: on machines of one kind the bits are
    those of :class:`simulations.workers.inline.InlineWorkers` in a process of one thread. A job is trained once; again
    only if its actor died or a job of its cohort failed. A failure is raised when its job is asked for, and not if it
    never is.

    Parameters
    ----------
    model
        A module to train with; it is copied, and its values do not matter.
    data
        The clients' data; stored once per machine and shared by its actors.
    count
        Number of actors.
    device
        Where an actor trains: ``"cpu"``, or ``"cuda"`` for the GPU that Ray gives it.
    gpus_per_worker
        Share of a GPU that an actor reserves; 0 with a GPU as device divides all GPUs evenly.
    address
        Of a running Ray cluster, ``"auto"`` for the one of this machine. None starts a Ray that only this machine can
        reach, unless this process is connected to Ray already.
    attempts
        How often a job may see its actor die before it has failed.
    ahead_bytes
        About how much memory updates may take that were trained and not yet asked for, bytes.

    Raises
    ------
    UserError
        If Ray is not installed, no cluster answers, or it has no room for the actors.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        data: FederatedData,
        *,
        count: int,
        device: str = "cpu",
        gpus_per_worker: float = 0.0,
        address: str | None = None,
        attempts: int = 3,
        ahead_bytes: int = 4 << 30,
    ) -> None:
        self._ray = import_ray()
        self._attempts = attempts
        self._ahead = max(1, ahead_bytes // (4 * ParameterLayout.of(model).size))
        self._waiting = Waiting()
        self._running: dict[Any, _Cohort] = {}  # by the reference to its results
        self._where: dict[JobKey, Any] = {}  # the reference that a running job is under
        self._unwanted: set[JobKey] = set()  # running jobs that were discarded
        self._trained: dict[JobKey, Result | Exception] = {}
        self._deaths: dict[JobKey, int] = {}
        self._unseen = 0  # jobs submitted since finished cohorts were last looked for
        self._actors: list[_Actor] = []
        self._cluster = Cluster(self._ray, address, count)
        self._vectors = SharedVectors(self._ray.put, self._cluster.stored_bytes)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            options = self._cluster.options(device, gpus_per_worker, count)
            self._actor_class = self._ray.remote(CohortTrainer).options(**options)
            self._arguments = (self._ray.put(model), self._ray.put(pack_data(data)), device)
            self._actors = [_Actor(self._new_actor()) for _ in range(count)]
            self._cluster.await_ready([actor.handle for actor in self._actors])
            undo.pop_all()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs that may be asked for later."""
        for job in jobs:
            self._vectors.hold(job.order)
            self._waiting.add(job)
        self._unseen += len(jobs)
        if self._unseen >= _EAGER * len(self._actors):
            self._unseen = 0
            self._collect()
            self._dispatch()

    def result(self, key: JobKey) -> Update:
        """The update of a submitted job; until it is there, every actor is kept busy with jobs that arrive later.

        Raises
        ------
        TrainingError
            If its training raised an exception, or its actor died too often.
        UserError
            If its training raised one.
        """
        if key in self._waiting:
            self._waiting.hasten(key)
        elif key not in self._trained and key not in self._where:
            raise KeyError(key)
        while key not in self._trained:
            self._collect()
            self._dispatch()
            self._await(key)
        result = self._trained.pop(key)
        if isinstance(result, Exception):
            raise result
        return unpack_update(result)

    def discard(self, key: JobKey) -> None:
        """A submitted job will never be asked for; it is not trained, unless an actor has it already."""
        if key in self._waiting:
            self._vectors.release(self._waiting.remove(key).order)
        elif key in self._where:
            self._unwanted.add(key)
        else:
            self._trained.pop(key, None)

    def close(self) -> None:
        """End the actors, and Ray if it was started here and is not used by other workers."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()
        self._running.clear()
        self._where.clear()
        self._trained.clear()
        self._cluster.close()

    def _new_actor(self) -> Any:
        return self._actor_class.remote(*self._arguments)

    def _dispatch(self) -> None:
        """Divide the waiting jobs among the idle actors; if there are plenty, busy ones get a second cohort."""
        idle = [actor for actor in self._actors if not actor.cohorts]
        for shares in range(len(idle), 0, -1):
            self._send(idle[-shares], shares)
        for actor in self._actors:
            if len(actor.cohorts) == 1 and len(self._waiting) >= COHORT * len(self._actors) // 2:
                self._send(actor, len(self._actors))

    def _send(self, actor: _Actor, shares: int) -> None:
        """Send an actor its share of the waiting jobs, if there are any and there is room for more updates."""
        room = self._ahead - len(self._trained) - len(self._where)
        if not self._waiting or (room <= 0 and self._running):
            return
        size = cohort_size(len(self._waiting), shares)
        jobs = self._waiting.cohort(max(1, min(size, room)))
        plain, tensors = pack_jobs(jobs)
        arguments = [self._vectors.argument(tensor) for tensor in tensors.values()]
        reference = actor.handle.train.remote(plain, list(tensors), *arguments)
        cohort = self._running[reference] = _Cohort(actor, actor.handle, jobs)
        actor.cohorts.append(cohort)
        self._where.update((job.order.key, reference) for job in jobs)

    def _collect(self) -> None:
        """Take in the cohorts that are finished by now."""
        if self._running:
            references = list(self._running)
            for reference in self._ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)[0]:
                self._take(reference)

    def _await(self, key: JobKey) -> None:
        """Wait for a job, but not longer than until some actor could be given another cohort."""
        if key in self._trained:
            return
        reference = self._where.get(key)
        if reference is None or self._waiting:
            [reference], _ = self._ray.wait(list(self._running), num_returns=1, fetch_local=False)
        self._take(reference)

    def _take(self, reference: Any) -> None:
        """The results of a finished cohort, or what became of it."""
        cohort = self._running.pop(reference)
        for job in cohort.jobs:
            del self._where[job.order.key]
        try:
            results = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self._failed(cohort, error)
        except self._ray.exceptions.RayError as error:
            self._died(cohort, error)
        else:
            for job, result in zip(cohort.jobs, results, strict=True):
                self._conclude(job, result)
        cohort.actor.cohorts.remove(cohort)

    def _failed(self, cohort: _Cohort, error: Any) -> None:
        """A job raised an exception. Which one shows when each is trained alone."""
        if len(cohort.jobs) > 1:
            self._again(cohort.jobs)
            return
        [job] = cohort.jobs
        cause = error.cause
        kind, text = (type(cause), str(cause)) if isinstance(cause, UserError) else (TrainingError, repr(cause))
        self._fail(job, kind(f"client {job.order.client}, job {job.order.job}: {text}"), error)

    def _died(self, cohort: _Cohort, error: Exception) -> None:
        """The actor is gone, or the results with its machine: train the jobs again, one by one, on actors that live."""
        actor = cohort.actor
        if actor.handle is cohort.handle:
            # Actors work in order: what it had first is what it died on.
            head = next(other for other in actor.cohorts if other.handle is actor.handle)
            for job in head.jobs:
                self._deaths[job.order.key] = self._deaths.get(job.order.key, 0) + 1
            actor.handle = self._new_actor()
        for job in cohort.jobs:
            key = job.order.key
            if self._deaths.get(key, 0) < self._attempts:
                self._again([job])
            else:
                text = f"client {key.client}, job {key.job}: its Ray actor died {self._attempts} times: {error}"
                self._fail(job, TrainingError(text), error)

    def _fail(self, job: Job, failure: Exception, cause: Exception) -> None:
        failure.__cause__ = cause
        self._conclude(job, failure)

    def _again(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.order.key in self._unwanted:
                self._conclude(job, None)
            else:
                self._waiting.add(job, alone=True)

    def _conclude(self, job: Job, result: Result | Exception | None) -> None:
        key = job.order.key
        self._vectors.release(job.order)
        self._deaths.pop(key, None)
        if key in self._unwanted:
            self._unwanted.discard(key)
        elif result is not None:
            self._trained[key] = result


@dataclass(slots=True, eq=False)
class _Actor:
    """A place for an actor; one that died is replaced."""

    handle: Any
    cohorts: list[_Cohort] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Cohort:
    """Jobs that went out in one message, and the actor that they went to."""

    actor: _Actor
    handle: Any
    jobs: list[Job]


def import_ray() -> Any:
    """Ray, imported when it is needed and not before.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f'Ray is not installed ({error}): `pip install ray`, or train in this process (engine.workers = "inline")'
        ) from error
    return ray
