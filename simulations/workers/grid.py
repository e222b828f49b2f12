"""Training on the nodes of Flower's own simulation engine."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from fedmtl.protocol import JobKey, Update
from fedmtl.state import update_from_state
from fedmtl.wire import unpack
from simulations.workers.base import Job, Workers
from strategies.flower.messages import error_of, train_message


class GridWorkers(Workers):
    """Hands jobs to Flower's nodes, whichever is free: a job carries all that its client observed.

    Jobs whose updates arrive first in virtual time are sent first. A node has at most one message in flight.

    Parameters
    ----------
    grid
        Flower's in-memory grid.
    ttl
        Seconds that a node has for a job.
    patience
        Seconds to wait for the first node.
    poll
        Seconds between two looks for replies.
    """

    def __init__(self, grid: Grid, *, ttl: float = 3600.0, patience: float = 300.0, poll: float = 0.01) -> None:
        self._grid = grid
        self._ttl = ttl
        self._poll = poll
        self._waiting: list[tuple[float, JobKey]] = []
        self._jobs: dict[JobKey, Job] = {}
        self._in_flight: dict[str, tuple[int, JobKey]] = {}  # message -> node, job
        self._sent: set[JobKey] = set()
        self._done: dict[JobKey, Update] = {}
        self._nodes = self._wait_for_nodes(patience)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue the jobs, and send what can be sent."""
        for job in jobs:
            self._jobs[job.order.key] = job
            heapq.heappush(self._waiting, (job.arrival, job.order.key))
        self._nodes.update(self._grid.get_node_ids())
        self._work()

    def result(self, key: JobKey) -> Update:
        """The update of a job; other jobs go on while this one is waited for.

        Raises
        ------
        RuntimeError
            If a node failed at a job: in a simulation that is a fault, not an event.
        """
        if key not in self._sent:
            heapq.heappush(self._waiting, (float("-inf"), key))
        while key not in self._done:
            if not self._work() and key not in self._done:
                time.sleep(self._poll)  # for other processes; virtual time stands still
        del self._jobs[key]
        self._sent.discard(key)
        return self._done.pop(key)

    def discard(self, key: JobKey) -> None:
        """Forget a job; if it is on a node already, its update is dropped."""
        self._jobs.pop(key, None)
        self._done.pop(key, None)
        self._sent.discard(key)

    def _work(self) -> bool:
        """Take the replies that are there and send waiting jobs to free nodes; returns whether there was a reply."""
        replies = list(self._grid.pull_messages(list(self._in_flight))) if self._in_flight else []
        for reply in replies:
            self._take(reply)
        free = self._nodes - {node for node, _ in self._in_flight.values()}
        while free and self._waiting:
            _, key = heapq.heappop(self._waiting)
            if key in self._jobs and key not in self._sent:
                self._send(key, free.pop())
        return bool(replies)

    def _send(self, key: JobKey, node: int) -> None:
        job = self._jobs[key]
        ids = [id for id in self._grid.push_messages([train_message(job.order, node, self._ttl, job.observed)]) if id]
        if not ids:
            raise RuntimeError(f"Flower refused a message to node {node}")
        self._in_flight[ids[0]] = (node, key)
        self._sent.add(key)

    def _take(self, reply: Message) -> None:
        node, key = self._in_flight.pop(reply.metadata.reply_to_message_id)
        if key not in self._jobs:
            return
        if (fault := error_of(reply)) is not None:
            raise RuntimeError(f"node {node} failed at job {key.job} of client {key.client}: {fault}")
        self._done[key] = update_from_state(unpack(reply.content))

    def _wait_for_nodes(self, patience: float) -> set[int]:
        # Nodes register after the server app has started.
        until = time.monotonic() + patience
        while not (nodes := set(self._grid.get_node_ids())):
            if time.monotonic() > until:
                raise RuntimeError(f"Flower's simulation engine registered no node within {patience:g} s")
            time.sleep(self._poll)
        return nodes
