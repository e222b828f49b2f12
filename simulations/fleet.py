"""The simulated fleet: virtual time on an event heap."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from clients.policies import client_half
from clients.policies.base import ClientState
from clients.sending import send_compressed
from clients.trainer import local_steps
from fedmtl.balancing.table import bytes_up
from fedmtl.compression import compressor_of, forget_compressors
from fedmtl.data.federated import FederatedData
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Arrival, Deadline, Event, JobKey, Joined, Lost, TrainOrder, Update
from fedmtl.state import check_types, order_from_state, order_state
from fedmtl.update_contract import Claim
from simulations.devices.profile import LONGEST, Devices
from simulations.work import OrderWork
from simulations.workers.at_once import AtOnce
from simulations.workers.base import Job, Workers
from strategies.core.fleet import Fleet

# Kinds of heap entries, in the order in which events of one instant happen. Deadlines come after all of them.
_ARRIVAL, _LOST, _JOINED = 0, 1, 2


class SimulatedFleet(Fleet):
    """Clients on simulated devices, trained by real workers.

    How long an order takes is known when it is sent: a device profile says so. So events wait in a heap, ordered by
    (time, kind, sequence), and an order is trained when its update is the next event, or earlier by workers that run in
    parallel; neither changes the result. At one instant arrivals come first, in the order in which their orders were
    sent, then clients that are lost, then clients that join, then deadlines.

    Parameters
    ----------
    data
        The clients' data (sizes and tasks; the examples themselves are with the workers).
    devices
        How long orders take, and when devices are away.
    workers
        Where orders are trained.
    layout
        Layout of the model, for counting bytes and work.

    Raises
    ------
    ConfigError
        If a device would take longer for any order than a clock can count.
    """

    simulated = True

    def __init__(self, data: FederatedData, devices: Devices, workers: Workers, layout: ParameterLayout) -> None:
        self._data = data
        self._devices = devices
        self._workers = workers
        self._layout = layout
        self._work = OrderWork(layout)
        self._now = 0.0
        self._sequence = 0
        self._heap: list[tuple[float, int, int, int, int]] = []  # time, kind, sequence, client, job
        self._pending: dict[JobKey, _Sent] = {}
        self._states: dict[int, ClientState] = {}
        least = 4 * min(layout.size_for((task,)) for task in range(len(data.tasks)))
        devices.refuse_endless(data.active, least, least)

    def clients(self) -> Sequence[int]:
        """Every client that has a task to train; all are there at the start."""
        return self._data.active

    def claim(self, client: int) -> Claim:
        """The size of the client's shard, and its tasks."""
        return Claim(self._data.shards.size(client), self._data.tasks_of(client))

    def now(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def train_at_once(self, on_outcome_known: Callable[[Update], None]) -> None:
        """Train every job when it begins, and show its update."""
        self._workers = AtOnce(self._workers, on_outcome_known)

    def send(self, orders: Sequence[TrainOrder]) -> None:
        """Schedule the updates of these orders, and hand the orders to the workers.

        Raises
        ------
        ConfigError
            If an order takes no time that the clock can tell, or longer than it can count; names client and key.
        """
        jobs = []
        for order in orders:
            sent = self._schedule(order)
            if sent.job is not None:
                jobs.append(sent.job)
        if jobs:
            self._workers.submit(jobs)

    def next_event(self, until: float | None) -> Event | None:
        """The earliest event, or a `Deadline` if `until` comes strictly before it."""
        if until is not None and not math.isfinite(until):
            until = None  # a deadline at the end of all times is none
        if not self._heap or (until is not None and until < self._heap[0][0]):
            if until is None:
                return None
            self._now = max(self._now, until)
            return Deadline(self._now)
        self._now, kind, _, client, job = heapq.heappop(self._heap)
        if kind == _ARRIVAL:
            return Arrival(self._now, self._deliver(JobKey(client, job)))
        if kind == _LOST:
            return Lost(self._now, client, "the device went away")
        return Joined(self._now, client)

    def _schedule(self, order: TrainOrder) -> _Sent:
        """Put the order's update on the heap, or the loss of the client if its device goes away before."""
        client, job = order.client, order.job
        steps = local_steps(order, self._data.shards.size(client))
        down, up = self._traffic(order)
        half = client_half(order.policy)
        # A client that drops its only batch is busy all the same: orders that took no time would never let it pass.
        steps = max(steps, 1)
        work = self._work.of(order, steps, self._data.shards.size(client), self._data.tasks_of(client))
        duration = self._devices.duration(client, job, steps, down, up, work)
        if not self._now < self._now + duration <= LONGEST:
            what = f"an order of {duration:.3g} s, given at {self._now:.3g} s,"
            fault = "ends after 2^53 s, where seconds are not counted any more"
            if duration < 1.0:
                fault = "is too short to move the clock"
            raise self._devices.refuse(client, steps, down, up, f"{what} {fault}", work)
        outage = self._devices.outage(client, job, duration)
        if outage is not None:
            lost = self._now + outage.after
            self._push(lost, _LOST, client, job)
            self._push(lost + outage.away, _JOINED, client, job)
            return _Sent(None, self._now, down, up)
        state = self._states.setdefault(client, {})
        observed = half.observe(order, state)
        if not state:
            del self._states[client]
        sent = _Sent(Job(order, observed, self._now + duration), self._now, down, up)
        self._pending[order.key] = sent
        self._push(self._now + duration, _ARRIVAL, client, job)
        return sent

    def _deliver(self, key: JobKey) -> Update:
        """The update of a job whose time has come."""
        sent = self._pending.pop(key)
        assert sent.job is not None
        order = sent.job.order
        update = self._workers.result(key)
        update.dispatched_at, update.arrived_at = sent.at, self._now
        update.bytes_down, update.bytes_up = sent.down, sent.up
        state = self._states.setdefault(key.client, {})
        client_half(order.policy).conclude(order, update, state)
        entries = send_compressed(order, update, state)
        if not state:
            del self._states[key.client]
        if entries is not None:
            # An order's time is known when it is sent, so it is that of the longest upload; this is what really went.
            update.bytes_up += 4 * (update.delta.numel() - entries)
        return update

    def _traffic(self, order: TrainOrder) -> tuple[int, int]:
        """Bytes down and up: 4 per float, the model restricted to the client's tasks, 4 for the version."""
        tasks = self._data.tasks_of(order.client)
        model = 4 * self._layout.size_for(tasks)
        weights = 0 if order.task_factors is None else len(tasks)
        vectors = sum(vector.numel() for vector in order.vectors.values())
        received, sent = order.transfers
        down = received * model + 4 + 4 * (len(order.terms) + weights + vectors)
        half = client_half(order.policy)
        extra = half.extra_bytes_up(order) + half.task_bytes_up(order, len(tasks))
        if order.compression is not None:
            model = 4 * compressor_of(order.compression).most_entries(self._layout)
        up = sent * model + 4 + extra + bytes_up(order.balancing, len(tasks))
        return down, up

    def _push(self, time: float, kind: int, client: int, job: int) -> None:
        heapq.heappush(self._heap, (time, kind, self._sequence, client, job))
        self._sequence += 1

    def state_dict(self) -> dict[str, Any]:
        """Clock, heap, orders in flight and the clients' own states."""
        return {
            "now": self._now,
            "sequence": self._sequence,
            "heap": [list(entry) for entry in self._heap],
            "pending": [sent.state() for sent in self._pending.values()],
            "clients": [[client, state] for client, state in self._states.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; orders in flight are handed to the workers again."""
        self._now = float(state["now"])
        self._sequence = int(state["sequence"])
        self._heap = [(float(t), int(k), int(s), int(c), int(j)) for t, k, s, c, j in state["heap"]]
        pending = [_Sent.restore(entry, self._layout) for entry in state["pending"]]
        self._pending = {sent.job.order.key: sent for sent in pending if sent.job is not None}
        self._states = {int(client): dict(own) for client, own in state["clients"]}
        self._workers.submit([sent.job for sent in pending if sent.job is not None])

    def close(self) -> None:
        """Close the workers, and free what clients' compressors keep."""
        self._workers.close()
        forget_compressors()


_NUMBER = (int, float)
_SENT: Mapping[str, tuple[type, ...]] = {
    "order": (Mapping,),
    "observed": (Mapping,),
    "arrival": _NUMBER,
    "at": _NUMBER,
    "down": (int,),
    "up": (int,),
}


class _Sent:
    """An order in flight: its job (None if it will not be answered), when it was sent, and its bytes."""

    __slots__ = ("at", "down", "job", "up")

    def __init__(self, job: Job | None, at: float, down: int, up: int) -> None:
        self.job = job
        self.at = at
        self.down = down
        self.up = up

    def state(self) -> dict[str, Any]:
        assert self.job is not None
        observed: dict[str, float | Tensor] = dict(self.job.observed)
        return {
            "order": order_state(self.job.order),
            "observed": observed,
            "arrival": self.job.arrival,
            "at": self.at,
            "down": self.down,
            "up": self.up,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any], layout: ParameterLayout) -> _Sent:
        check_types(state, _SENT)
        order = order_from_state(state["order"], layout)
        if order.base.vector.shape != (layout.size,):
            raise ValueError(f"'base': {order.base.vector.numel()} entries where the model has {layout.size}")
        job = Job(order, state["observed"], float(state["arrival"]))
        return cls(job, float(state["at"]), int(state["down"]), int(state["up"]))
