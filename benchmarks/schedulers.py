"""Microseconds that a scheduler takes for an event with 100,000 clients, for every scheduler and every selector.

    .venv/bin/python -m benchmarks.schedulers [--clients 100000] [--windows 5] [--only compass]

A scheduler is handed updates and deadlines in the order of a virtual clock and gives orders; nobody trains, nothing is
aggregated. What is counted is the processor time of the scheduler's own calls (`on_update`, `on_deadline`,
`next_deadline`; the clock's own cost is taken off), over the updates that arrived: what a round costs is shared by the
answers of that round. The figure is the median over the windows. Before them every client has reported once, so that
selectors and speed models have a hundred thousand clients to look at; the row "nobody known" is the opposite. The last
column is the same figure over a loop that does nothing but a push to and a pop from a heap of 100,000 entries and a
change of a dictionary, taken in turn with the windows: it changes less with the machine and its load.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Decision, GlobalModel, Update
from strategies.core.kinds import Scheduler
from strategies.schedulers import Asynchronous, Buffered, Compass, LagTolerant, Pooled, Queued, Synchronous, Tiered
from strategies.selectors import HeteroSelect, OortSelector, Selector
from strategies.selectors.paced import PacedSelector

SELECTORS: dict[str, Callable[[], Selector]] = {
    "Oort": OortSelector,
    "HeteRo-Select": HeteroSelect,
    "curriculum": PacedSelector,
}


def rounds_of_ten(selector: Callable[[], Selector]) -> Callable[[], Scheduler]:
    """Rounds of ten that the selector chooses."""
    return lambda: Synchronous(clients_per_round=10, selection=selector())


def hundred_busy(selector: Callable[[], Selector]) -> Callable[[], Scheduler]:
    """A buffer of ten, and a hundred busy clients that the selector chooses."""
    return lambda: Buffered(buffer_size=10, concurrency=100, selection=selector())


SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "synchronous, everybody": Synchronous,
    "synchronous, everybody, steps to fit": lambda: Synchronous(step_budget=20.0),
    "synchronous, 10 a round": lambda: Synchronous(clients_per_round=10),
    "synchronous, 10 a round of 13, time-out": lambda: Synchronous(clients_per_round=10, over_commit=1.3, timeout=40.0),
    **{f"synchronous, 10 a round, {name}": rounds_of_ten(make) for name, make in SELECTORS.items()},
    "asynchronous, everybody": Asynchronous,
    "asynchronous, 100 busy": lambda: Asynchronous(concurrency=100),
    "buffered, everybody": Buffered,
    "buffered, 100 busy": lambda: Buffered(concurrency=100),
    "buffered, everybody, ticks": lambda: Buffered(clock="tick"),
    "buffered, every task": lambda: Buffered(max_buffer=20),
    **{f"buffered, 100 busy, {name}": hundred_busy(make) for name, make in SELECTORS.items()},
    "compass": Compass,
    "compass, affine": lambda: Compass(speed_model="affine"),
    "lag-tolerant, quota of 10": LagTolerant,
    "lag-tolerant, quota of 10,000": lambda: LagTolerant(buffer_size=10_000),
    "pooled": Pooled,
    "pooled, 100 busy": lambda: Pooled(concurrency=100),
    "queued": lambda: Queued(round_seconds=60.0),
    "tiered, everybody": Tiered,
    "tiered, 10 a round": lambda: Tiered(clients_per_round=10),
}
USUAL_STEPS = 20
_LAYOUT = ParameterLayout((), slice(0, 10), (slice(10, 10),), slice(10, 10))


class Drive:
    """A scheduler, and clients that answer its orders after a time; speeds are 1:50.

    Attributes
    ----------
    arrivals
        Updates that arrived.
    """

    def __init__(self, scheduler: Scheduler, clients: int) -> None:
        generator = np.random.default_rng(0)
        self.scheduler = scheduler
        self.arrivals = 0
        self._seconds: list[float] = generator.uniform(1.0, 50.0, clients).tolist()
        self._loss: list[float] = generator.lognormal(size=clients).tolist()
        self._deltas = torch.from_numpy(generator.normal(size=(64, 10)).astype(np.float32)).unbind()
        self._heap: list[tuple[float, int, int]] = []
        self._version = self._jobs = 0
        self._now = 0.0
        scheduler.prepare(GlobalModel(0, torch.zeros(10), _LAYOUT), 0)

    def begin(self, *, known: bool) -> None:
        """The first orders. If clients are to be known, a selector has heard of each of them."""
        selector = getattr(self.scheduler, "selector", None)
        clients = range(len(self._seconds))
        if known and selector is not None:
            for client in clients:
                selector.heard(self._update(client, 0.0, self._seconds[client]))
        self._act(self.scheduler.begin(clients, 0.0))

    def run(self, arrivals: int) -> float:
        """Microseconds per update, over so many."""
        clock, scheduler, heap = time.thread_time_ns, self.scheduler, self._heap
        spent, calls = 0.0, 0
        end = self.arrivals + arrivals
        while self.arrivals < end:
            started = clock()
            due = scheduler.next_deadline()
            if due is not None and (not heap or due < heap[0][0]):
                self._now = due
                decision = scheduler.on_deadline(due)
                spent += clock() - started
            else:
                spent += clock() - started
                self._now, client, steps = heapq.heappop(heap)
                update = self._update(client, self._now - self._duration(client, steps), self._now, steps)
                self.arrivals += 1
                calls += 1
                started = clock()
                decision = scheduler.on_update(update, self._now)
                spent += clock() - started
            calls += 1
            self._act(decision)
        return (spent - calls * _clock_cost()) / arrivals / 1e3

    def _duration(self, client: int, steps: int) -> float:
        return self._seconds[client] * steps / USUAL_STEPS

    def _update(self, client: int, sent: float, now: float, steps: int = USUAL_STEPS) -> Update:
        self._jobs += 1
        return Update(
            client,
            self._jobs,
            self._version,
            self._deltas[self._jobs % 64],
            examples=10 + client % 90,
            steps=steps,
            task_losses=(self._loss[(client * 7919 + self._jobs) % len(self._loss)],),
            dispatched_at=sent,
            arrived_at=now,
        )

    def _act(self, decision: Decision) -> None:
        self._version += bool(decision.aggregate)
        for client, steps in ((order.client, order.steps or USUAL_STEPS) for order in decision.assignments):
            heapq.heappush(self._heap, (self._now + self._duration(client, steps), client, steps))


def _clock_cost() -> float:
    """Nanoseconds between two looks at the clock, one after the other."""
    clock = time.thread_time_ns
    looks = [clock() for _ in range(1001)]
    return (looks[-1] - looks[0]) / 1000


def calibrate(clients: int, loops: int = 20_000) -> float:
    """Microseconds of a push, a pop and a change of a dictionary."""
    heap = [(float(client), client) for client in range(clients)]
    latest = dict.fromkeys(range(clients), 0.0)
    started = time.thread_time_ns()
    for _ in range(loops):
        now, client = heapq.heappop(heap)
        heapq.heappush(heap, (now + 1.0 + client % 50, client))
        latest[client] = now
    return (time.thread_time_ns() - started) / loops / 1e3


def measure(make: Callable[[], Scheduler], clients: int, windows: int, *, known: bool = True) -> tuple[float, float]:
    """Microseconds per update, and that over the calibration: the medians over the windows."""
    drive = Drive(make(), clients)
    drive.begin(known=known)
    everybody = len(drive._heap) > clients // 2
    # Where all are busy, a window is a job of every client, on average; the first ones are the warm-up.
    arrivals = clients if everybody else 5_000
    if known:
        drive.run(2 * arrivals)
    costs, ratios = [], []
    for _ in range(windows):
        costs.append(drive.run(arrivals))
        ratios.append(costs[-1] / calibrate(clients))
    return statistics.median(costs), statistics.median(ratios)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--only", default="", help="measure those whose name contains this")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    loop = statistics.median(calibrate(options.clients) for _ in range(options.windows))
    print(f"calibration loop: {loop:.2f} us")
    print(f"{'scheduler':42} {'us/event':>9} {'x loop':>7}")
    for name, make in SCHEDULERS.items():
        for known in (True, False) if any(selector in name for selector in SELECTORS) else (True,):
            label = name if known else f"{name}, nobody known"
            if options.only in label:
                cost, ratio = measure(make, options.clients, options.windows, known=known)
                print(f"{label:42} {cost:9.1f} {ratio:7.1f}", flush=True)


if __name__ == "__main__":
    main()
