"""Client updates per second of the whole simulator and of a bare PyTorch loop, in one process, in turn.

    .venv/bin/python benchmarks/throughput.py [--windows 7] [--rows mlp,cnn]

The bare loop is the floor that any simulator pays: one module, tensors that are sliced, `torch.autograd.grad`, a fused SGD
step, and the mean of ten deltas. The simulator runs the same jobs through everything it has: event heap, scheduler, checks,
aggregation and records. 100 clients, 10 to a round, plain SGD, one thread. The machine may be shared: read the ratios.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, TrainSettings
from fedmtl.records import Recorder
from fedmtl.tasks import Task
from simulations.devices import DEVICES, World
from simulations.fleet import SimulatedFleet
from simulations.workers.inline import InlineWorkers
from strategies.catalogue import build_strategy
from strategies.loop import Loop
from strategies.observers import Recording

CLIENTS, PER_ROUND = 100, 10
TASK = Task("label", "classification", outputs=10)


@dataclass(frozen=True)
class Row:
    """A workload: a model and its input shape, and a shard size with its batch size."""

    model: str
    options: dict[str, object]
    input_shape: tuple[int, ...]
    examples: int
    batch: int


MODELS: dict[str, tuple[str, dict[str, object], tuple[int, ...]]] = {
    "logreg": ("linear", {}, (784,)),
    "mlp": ("mlp", {"hidden": (200,)}, (784,)),
    "cnn": ("lenet", {"channels": (32, 64), "hidden": (512,)}, (1, 28, 28)),
    "cifar": ("lenet", {"channels": (6, 16), "hidden": (120, 84), "padding": 0}, (3, 32, 32)),
}
SHARDS = {"w20": (20, 10), "w100": (100, 20)}


def row(name: str) -> Row:
    """The workload of a name such as ``"mlp-w20"``."""
    model, shard = name.split("-")
    return Row(*MODELS[model], *SHARDS[shard])


def make_data(row: Row) -> FederatedData:
    """Random examples; what is learned does not matter here."""
    generator = torch.Generator().manual_seed(0)
    total = CLIENTS * row.examples
    features = torch.randn(total, *row.input_shape, generator=generator)
    labels = torch.randint(0, TASK.outputs, (total,), generator=generator)
    train = Examples(features, (labels,))
    shards = Shards(np.split(np.arange(total), CLIENTS))
    nothing = Shards([np.empty(0, dtype=np.int64)] * CLIENTS)
    return FederatedData(
        [TASK], train, train.take(torch.arange(10)), shards, nothing, np.ones((CLIENTS, 1), dtype=bool)
    )


class Floor:
    """A bare hand-written loop: the least that PyTorch code can do for these jobs."""

    def __init__(self, row: Row, data: FederatedData, settings: TrainSettings) -> None:
        self.module = build_model(row.model, row.options, row.input_shape, data.tasks, 0)
        self.head = self.module.heads[TASK.name]
        self.parameters = list(self.module.parameters())
        self.globals = [parameter.detach().clone() for parameter in self.parameters]
        self.data, self.settings = data, settings

    def round(self) -> None:
        """Ten clients, one epoch each, and the mean of their deltas."""
        sums = [torch.zeros_like(value) for value in self.globals]
        for client in torch.randperm(CLIENTS)[:PER_ROUND].tolist():
            self.client(client)
            with torch.no_grad():
                torch._foreach_add_(sums, torch._foreach_sub(self.parameters, self.globals), alpha=1 / PER_ROUND)
        torch._foreach_add_(self.globals, sums)

    def client(self, client: int) -> None:
        """One local epoch from the global values."""
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.globals)
        shard = self.data.shards[client]
        index = shard[torch.randperm(len(shard))]
        features = self.data.train.features[index]
        labels = self.data.train.targets[0][index]
        size, rate = self.settings.batch_size, self.settings.learning_rate
        for start in range(0, len(index), size):
            output = self.head(self.module.backbone(features[start : start + size]))
            loss = F.cross_entropy(output, labels[start : start + size])
            gradients = torch.autograd.grad(loss, self.parameters)
            with torch.no_grad():
                torch._foreach_add_(self.parameters, gradients, alpha=-rate)


class Simulator:
    """The same jobs through the simulator: FedBuff over a hundred clients that are always busy, ten updates to a version."""

    def __init__(self, row: Row, data: FederatedData, settings: TrainSettings) -> None:
        self.row, self.data, self.settings = row, data, settings
        module: MultiTaskModel = build_model(row.model, row.options, row.input_shape, data.tasks, 0)
        self.layout = ParameterLayout.of(module)
        self.start = self.layout.pack(module)
        self.trainer = LocalTrainer(module, data)
        self.devices = DEVICES["uniform"](World(CLIENTS, 0), ratio=50)

    def rounds(self, count: int) -> None:
        """So many versions, of ten updates each."""
        strategy = build_strategy("fedbuff", {"buffer_size": PER_ROUND}, None)
        strategy.initialise(GlobalModel(0, self.start, self.layout), self.settings, seed=0)
        fleet = SimulatedFleet(self.data, self.devices, InlineWorkers(self.trainer), self.layout)
        recorder = Recorder(None, self.data.tasks)
        loop = Loop(strategy, fleet, [Recording(recorder)])
        loop.run(lambda loop: "done" if loop.strategy.model.version >= count else None)


def rate(work: Callable[[], None], updates: int) -> float:
    """Updates per second of one window."""
    gc.collect()
    started = time.perf_counter()
    work()
    return updates / (time.perf_counter() - started)


def measure(name: str, windows: int, seconds: float) -> None:
    """Measure one workload: floor and simulator alternate, so that a change of the machine's speed hits both."""
    workload = row(name)
    data = make_data(workload)
    settings = TrainSettings(epochs=1, batch_size=workload.batch, learning_rate=0.01, clip=0.0)
    floor, simulator = Floor(workload, data, settings), Simulator(workload, data, settings)
    floor.round()
    single = PER_ROUND / rate(floor.round, PER_ROUND)
    rounds = max(1, round(seconds / single))

    def floor_rounds() -> None:
        for _ in range(rounds):
            floor.round()

    simulator.rounds(1)
    pairs = [
        (rate(floor_rounds, rounds * PER_ROUND), rate(lambda: simulator.rounds(rounds), rounds * PER_ROUND))
        for _ in range(windows)
    ]
    best_floor, best_simulator = max(f for f, _ in pairs), max(s for _, s in pairs)
    ratio = statistics.median(s / f for f, s in pairs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:12} {best_floor:10.0f} {best_simulator:10.0f} {ratio:8.2f} {peak:10.0f}", flush=True)


def main() -> None:
    """Measure the workloads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=7, help="windows of each kind for each row")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    names = [f"{model}-{shard}" for model in MODELS for shard in SHARDS]
    parser.add_argument("--rows", default=",".join(names), help="workloads, separated by commas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'workload':12} {'floor/s':>10} {'fedmtl/s':>10} {'ratio':>8} {'peak MB':>10}")
    for name in arguments.rows.split(","):
        measure(name, arguments.windows, arguments.seconds)


if __name__ == "__main__":
    main()
