"""Microseconds that an update costs beside its training: events, scheduling, checks, aggregation, records.

    .venv/bin/python benchmarks/event_loop.py [--clients 100000] [--parameters 1000]

The workers here do not train: they hand back a ready-made update, so that all the rest is what is left to measure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, JobKey, TrainSettings, Update
from fedmtl.records import Recorder
from fedmtl.tasks import Task
from simulations.devices import DEVICES, World
from simulations.fleet import SimulatedFleet
from simulations.observers import Recording
from simulations.workers.base import Job, Workers
from strategies.core.loop import Loop
from strategies.recipes.catalogue import build_strategy

TASK = Task("value", "regression")


class Idle(Workers):
    """Workers that answer every order with the same delta."""

    def __init__(self, delta: torch.Tensor) -> None:
        self.delta = delta
        self.jobs: dict[JobKey, Job] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Keep the jobs."""
        for job in jobs:
            self.jobs[job.order.key] = job

    def result(self, key: JobKey) -> Update:
        """An update that no one trained."""
        order = self.jobs.pop(key).order
        return Update(key.client, key.job, order.base.version, self.delta, 1, 1, (0,), (0.0,), (1.0,))

    def discard(self, key: JobKey) -> None:
        """Forget a job."""
        self.jobs.pop(key, None)


def measure(strategy_name: str, options: dict[str, object], clients: int, parameters: int, versions: int) -> float:
    """Microseconds per update, the best of five runs."""
    train = Examples(torch.zeros(clients, 1), (torch.zeros(clients),))
    parts = np.arange(clients)
    shards, nothing = Shards.of_sizes(parts, np.ones(clients, int)), Shards.of_sizes(parts[:0], np.zeros(clients, int))
    data = FederatedData([TASK], train, train.take(torch.arange(1)), shards, nothing, np.ones((clients, 1), dtype=bool))
    layout = ParameterLayout((), slice(0, parameters), (slice(parameters, parameters),), slice(parameters, parameters))
    devices = DEVICES["uniform"](World(clients, 0), ratio=50)
    best = float("inf")
    for _ in range(5):
        strategy = build_strategy(strategy_name, options)
        strategy.initialise(GlobalModel(0, torch.zeros(parameters), layout), TrainSettings(), seed=0)
        fleet = SimulatedFleet(data, devices, Idle(torch.full((parameters,), 1e-3)), layout)
        loop = Loop(strategy, fleet, [Recording(Recorder(None, data.tasks))])
        started = time.perf_counter()
        loop.run(lambda loop: "done" if loop.strategy.model.version >= versions else None)
        best = min(best, (time.perf_counter() - started) / loop.arrivals * 1e6)
    return best


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--parameters", type=int, default=1_000)
    parser.add_argument("--versions", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'strategy':12} {'clients':>8} {'in flight':>9} {'us/update':>10}")
    for name in ("fedbuff", "fedqs"):
        for clients in (100, arguments.clients):
            flying = min(clients, 100)
            options = {"buffer_size": 10, "concurrency": flying}
            cost = measure(name, options, clients, arguments.parameters, arguments.versions)
            print(f"{name:12} {clients:8} {flying:9} {cost:10.1f}", flush=True)


if __name__ == "__main__":
    main()
