"""What balancing costs: microseconds of a training step with each balancer, and over the step with equal weights.

    .venv/bin/python -m benchmarks.balancers [--batches 13,50] [--models mlp,cnn] [--names ntkmtl-sr,ntkmtl]

A step is all that local training does: cutting the batch, gradients, clip and update, on the four tasks of the digits,
on one thread. Every round takes the balancers in turn, so that a change of the machine's speed hits all of them; the
ratio is the median over rounds. The last row is a bare loop that makes NTKMTL's gradients with a backward pass for each
task, by `torch.autograd.grad`, and nothing else.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from clients.trainer import LocalTrainer
from fedmtl.balancing import BALANCERS
from fedmtl.data.digits import digits
from fedmtl.data.federated import FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings

MODELS: dict[str, tuple[str, dict[str, object]]] = {"mlp": ("mlp", {}), "cnn": ("lenet", {})}
EXAMPLES = 500
BARE = "K backward passes"


class Workload:
    """A model, and one client with 500 digits and four tasks."""

    def __init__(self, model: str, batch: int, steps: int) -> None:
        name, options = MODELS[model]
        pool = digits(0, 1)
        shard, nothing = Shards([np.arange(EXAMPLES)]), Shards([np.empty(0, dtype=np.int64)])
        owners = np.ones((1, len(pool.tasks)), dtype=bool)
        self.data = FederatedData(pool.tasks, pool.train, pool.test, shard, nothing, owners)
        self.module = build_model(name, options, tuple(pool.train.features.shape[1:]), pool.tasks, 0)
        self.layout = ParameterLayout.of(self.module)
        self.start = GlobalModel(0, self.layout.pack(self.module), self.layout)
        self.trainer = LocalTrainer(
            build_model(name, options, tuple(pool.train.features.shape[1:]), pool.tasks, 0), self.data
        )
        self.settings = TrainSettings(batch_size=batch, learning_rate=0.01)
        self.steps = steps

    def job(self, balancer: str) -> None:
        """A job of so many steps through the trainer."""
        order = TrainOrder(
            0, 0, self.start, self.steps, self.settings, None, Balancing(balancer), "plain", {}, {}, seed=0
        )
        self.trainer.train(order)

    def bare(self) -> None:
        """As many steps of a hand-written loop with a backward pass for each task."""
        tasks, train = self.data.tasks, self.data.train
        shared = list(self.module.backbone.parameters())
        heads = [list(self.module.heads[task.name].parameters()) for task in tasks]
        parameters = [*shared, *(parameter for head in heads for parameter in head)]
        batch = self.settings.batch_size
        for step in range(self.steps):
            rows = slice(step * batch % (EXAMPLES - batch), step * batch % (EXAMPLES - batch) + batch)
            outputs = self.module(train.features[rows])
            losses = [
                task.mean_loss(output, target[rows])
                for task, output, target in zip(tasks, outputs, train.targets, strict=True)
            ]
            total = [torch.zeros_like(parameter) for parameter in shared]
            own = []
            for loss, head in zip(losses, heads, strict=True):
                found = torch.autograd.grad(loss, [*shared, *head], retain_graph=True)
                torch._foreach_add_(total, list(found[: len(shared)]))
                own += found[len(shared) :]
            with torch.no_grad():
                torch._foreach_add_(parameters, [*total, *own], alpha=-1e-6)


def measure(model: str, batch: int, names: list[str], rounds: int, steps: int) -> None:
    """One table: a row for each balancer."""
    workload = Workload(model, batch, steps)
    work: dict[str, Callable[[], None]] = {
        name: (lambda name=name: workload.job(name)) for name in dict.fromkeys(["equal", *names])
    }
    work[BARE] = workload.bare
    times: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run()
    for _ in range(rounds):
        gc.collect()
        for name, run in work.items():
            started = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - started) / steps * 1e6)
    print(f"\n{model}, batch {batch}\n{'balancer':20} {'us a step':>10} {'over equal':>11} {'over bare loop':>15}")
    for name, taken in times.items():
        over = [statistics.median(a / b for a, b in zip(taken, times[other], strict=True)) for other in ("equal", BARE)]
        print(f"{name:20} {statistics.median(taken):10.0f} {over[0]:11.2f} {over[1]:15.2f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="13,50", help="batch sizes, separated by commas")
    parser.add_argument("--models", default="mlp,cnn", help="models, separated by commas")
    parser.add_argument("--names", default=",".join(BALANCERS), help="balancers, separated by commas")
    parser.add_argument("--rounds", type=int, default=15, help="jobs of each balancer")
    parser.add_argument("--steps", type=int, default=40, help="steps of a job")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for model in arguments.models.split(","):
        for batch in map(int, arguments.batches.split(",")):
            measure(model, batch, arguments.names.split(","), arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
