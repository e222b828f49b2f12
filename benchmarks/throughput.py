"""Client updates per second of the whole simulator and of a bare PyTorch loop, in one process, in turn.

    .venv/bin/python benchmarks/throughput.py [--windows 7] [--rows mlp,cnn]

The bare loop is the floor that any simulator pays: one module, tensors that are sliced, `torch.autograd.grad`, a fused
SGD step, and the mean of ten deltas. The simulator runs the same jobs through everything it has: event heap, scheduler,
checks, aggregation and records. 100 clients, 10 to a round, plain SGD, one thread. The machine may be shared: read the
ratios. Peak memory is that of a process of its own for each of the two.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, TrainSettings
from fedmtl.tasks import Task

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
    """The same jobs through the simulator: FedBuff over a hundred busy clients, ten updates to a version."""

    def __init__(self, row: Row, data: FederatedData, settings: TrainSettings) -> None:
        # Imported here, so that the floor's memory is not burdened with what only the simulator needs.
        from clients.trainer import LocalTrainer
        from simulations.devices import DEVICES, World
        from simulations.fleet import SimulatedFleet
        from simulations.workers.inline import InlineWorkers

        module: MultiTaskModel = build_model(row.model, row.options, row.input_shape, data.tasks, 0)
        self.data, self.settings = data, settings
        self.layout = ParameterLayout.of(module)
        self.start = self.layout.pack(module)
        trainer = LocalTrainer(module, data)
        devices = DEVICES["uniform"](World(CLIENTS, 0), ratio=50)
        self.new_fleet = lambda: SimulatedFleet(data, devices, InlineWorkers(trainer), self.layout)

    def rounds(self, count: int) -> None:
        """So many versions, of ten updates each."""
        from fedmtl.records import Recorder
        from simulations.observers import Recording
        from strategies.core.loop import Loop
        from strategies.recipes.catalogue import build_strategy

        strategy = build_strategy("fedbuff", {"buffer_size": PER_ROUND}, None)
        strategy.initialise(GlobalModel(0, self.start, self.layout), self.settings, seed=0)
        loop = Loop(strategy, self.new_fleet(), [Recording(Recorder(None, self.data.tasks))])
        loop.run(lambda loop: "done" if loop.strategy.model.version >= count else None)


def rate(work: Callable[[], None], updates: int) -> float:
    """Updates per second of one window."""
    gc.collect()
    started = time.perf_counter()
    work()
    return updates / (time.perf_counter() - started)


def prepare(name: str) -> tuple[Row, FederatedData, TrainSettings]:
    """What both contestants are made of."""
    workload = row(name)
    return workload, make_data(workload), TrainSettings(1, workload.batch, learning_rate=0.01, clip=0.0)


def measure(name: str, windows: int, seconds: float) -> None:
    """Measure one workload: floor and simulator alternate, so that a change of the machine's speed hits both."""
    made = prepare(name)
    floor, simulator = Floor(*made), Simulator(*made)
    floor.round()
    rounds = max(1, round(seconds * rate(floor.round, PER_ROUND) / PER_ROUND))

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
    memory = [peak_of(name, part) for part in ("floor", "simulator")]
    cells = f"{best_floor:9.0f} {best_simulator:9.0f} {ratio:6.2f} {memory[0]:9.0f} {memory[1]:9.0f}"
    print(f"{name:12} {cells} {memory[1] / memory[0]:6.2f}", flush=True)


def peak_of(name: str, part: str) -> float:
    """Peak memory, MB, of a process that does ten rounds of one contestant."""
    command = [sys.executable, __file__, "--rows", name, "--peak", part]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout)


def print_peak(name: str, part: str) -> None:
    """What `peak_of` reads."""
    if part == "floor":
        floor = Floor(*prepare(name))
        for _ in range(10):
            floor.round()
    else:
        Simulator(*prepare(name)).rounds(10)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure the workloads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=7, help="windows of each kind for each row")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    names = [f"{model}-{shard}" for model in MODELS for shard in SHARDS]
    parser.add_argument("--rows", default=",".join(names), help="workloads, separated by commas")
    parser.add_argument("--peak", choices=("floor", "simulator"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        print_peak(arguments.rows, arguments.peak)
        return
    print(f"{'':12} {'updates per second':^26} {'peak memory, MB':^26}")
    print(f"{'workload':12} {'floor':>9} {'fedmtl':>9} {'ratio':>6} {'floor':>9} {'fedmtl':>9} {'ratio':>6}")
    for name in arguments.rows.split(","):
        measure(name, arguments.windows, arguments.seconds)


if __name__ == "__main__":
    main()
