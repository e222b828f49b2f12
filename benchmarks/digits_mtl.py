"""Four tasks on the handwritten digits, trained in one place: balancers against single-task models.

    .venv/bin/python -m benchmarks.digits_mtl [--names equal,ntkmtl] [--seeds 5] [--epochs 40] [--cache DIR]

1297 images for training, 500 for testing; a multilayer perceptron 64-64-32 with four linear heads; Adam, 1e-3, batches
of 64 (AdaTask makes Adam's steps itself). Balancers that look at gradients have the shared gradient clipped to norm 1
and heads unweighted, so that they differ in what they balance and in nothing else; those that weigh losses weigh their
heads, too. All errors are means over the last ten epochs on the test set, then over seeds. Single-task models of the
same shape are trained by the same loop, and kept in the cache folder. Delta-m and ranks: :mod:`fedmtl.metrics`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fedmtl.balancing import BALANCERS, Balancer, TaskNetwork, build_balancer
from fedmtl.balancing.loss_weighting import LossWeighting
from fedmtl.components import options_of
from fedmtl.data.digits import digits
from fedmtl.data.pool import Pool
from fedmtl.evaluation import evaluate
from fedmtl.files import replacing
from fedmtl.metrics import Metric, delta_m, mean_ranks
from fedmtl.models import build_model
from fedmtl.protocol import Balancing
from fedmtl.randomness import torch_generator

LAST = 10
SINGLE = "single-task"
METRICS = [
    Metric("digit", "error rate", False),
    Metric("parity", "error rate", False),
    Metric("ink", "squared error", False),
    Metric("asymmetry", "absolute error", False),
]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a result depends on besides balancer and tasks."""

    seed: int
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 1e-3
    target_noise: float = 0.5


def make(name: str) -> Balancer:
    """A balancer as this benchmark uses it."""
    build = BALANCERS[name]
    known = {option.name for option in options_of(build)}
    if name in ("equal", "equal-probed") or (isinstance(build, type) and issubclass(build, LossWeighting)):
        given = {"clip": 0.0}
    else:
        given = {"clip": 1.0, "head_weight": "unweighted"}
    return build_balancer(Balancing(name, {key: value for key, value in given.items() if key in known}))


def train(name: str, tasks: Sequence[int], setting: Setting, pool: Pool) -> list[float]:
    """The errors of these tasks on the test set, means over the last epochs."""
    chosen = [pool.tasks[task] for task in tasks]
    examples = pool.train.features
    model = build_model("mlp", {}, tuple(examples.shape[1:]), chosen, setting.seed)
    network = TaskNetwork(model, chosen)
    parameters = [*network.shared, *network.head_parameters]
    rule = torch.optim.SGD if name == "adatask" else torch.optim.Adam
    optimizer = rule(parameters, lr=setting.learning_rate)
    balancer = make(name)
    balancer.start_job(torch_generator(setting.seed, "balancing"))
    shuffle = torch_generator(setting.seed, "batches")
    targets = [pool.train.targets[task] for task in tasks]
    test = dataclasses.replace(pool.test, targets=tuple(pool.test.targets[task] for task in tasks))
    errors = []
    for epoch in range(setting.epochs):
        for rows in torch.randperm(len(examples), generator=shuffle).split(setting.batch_size):
            step = balancer.gradients(network, examples[rows], [target[rows] for target in targets], None)
            gradients = [*step.shared, *(gradient for head in step.heads for gradient in head)]
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        if epoch >= setting.epochs - LAST:
            errors.append(_errors(model, chosen, test))
    return torch.tensor(errors, dtype=torch.float64).mean(0).tolist()


def _errors(model: nn.Module, chosen: Sequence, test: object) -> list[float]:
    values = evaluate(model, chosen, test)
    return [1 - values[task.name] if task.higher_is_better else values[task.name] for task in chosen]


def single_task(setting: Setting, pool: Pool, cache: Path) -> list[float]:
    """The errors of models that learn one task each, from the cache or trained now."""
    path = cache / ("single-" + "-".join(f"{value:g}" for value in dataclasses.astuple(setting)) + ".json")
    if path.exists():
        return json.loads(path.read_text())["errors"]
    errors = [train("equal", [task], setting, pool)[0] for task in range(len(pool.tasks))]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**dataclasses.asdict(setting), "errors": errors}))
    return errors


def table(results: dict[str, list[list[float]]], seconds: dict[str, float]) -> None:
    """Print a row for each method: errors, delta-m against the same seed's single-task models, mean rank."""
    methods = {name: rows for name, rows in results.items() if name != SINGLE}
    ranks = mean_ranks({name: _mean(rows) for name, rows in methods.items()}, METRICS)
    print(
        "\n"
        + f"{'':14}"
        + "".join(f"{metric.task:>12}" for metric in METRICS)
        + f"{'delta-m %':>18}{'rank':>7}{'s/run':>8}"
    )
    for name, rows in results.items():
        gains = [delta_m(row, base, METRICS) for row, base in zip(rows, results[SINGLE], strict=True)]
        spread = f" +- {statistics.stdev(gains):.2f}" if len(gains) > 1 else ""
        line = f"{name:14}" + "".join(f"{value:12.4f}" for value in _mean(rows))
        line += f"{f'{statistics.mean(gains):.2f}{spread}':>18}"
        print(line + (f"{ranks[name]:7.2f}{seconds[name]:8.1f}" if name in ranks else ""))
    print(f"\nErrors: {', '.join(f'{metric.task} {metric.name}' for metric in METRICS)}.")
    print(f"Delta-m: mean +- deviation over seeds; lower is better. Rank: among these {len(ranks)}, ties averaged.")


def _mean(rows: list[list[float]]) -> list[float]:
    return torch.tensor(rows, dtype=torch.float64).mean(0).tolist()


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name in BALANCERS if name != "equal-probed"]
    parser.add_argument("--names", default=",".join(names), help="balancers, separated by commas")
    parser.add_argument("--seeds", type=int, default=5, help="seeds, from 0")
    parser.add_argument("--epochs", type=int, default=40, help="passes over the training images")
    parser.add_argument("--cache", type=Path, default=Path("runs/digits-mtl"), help="folder of the single-task results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = [Setting(seed, arguments.epochs) for seed in range(arguments.seeds)]
    pools = [digits(setting.seed, 1, target_noise=setting.target_noise) for setting in settings]
    results: dict[str, list[list[float]]] = {
        SINGLE: [single_task(setting, pool, arguments.cache) for setting, pool in zip(settings, pools, strict=True)]
    }
    seconds: dict[str, float] = {}
    for name in arguments.names.split(","):
        started = time.perf_counter()
        every = range(len(METRICS))
        results[name] = [train(name, every, setting, pool) for setting, pool in zip(settings, pools, strict=True)]
        seconds[name] = (time.perf_counter() - started) / len(settings)
        print(f"{name}: {seconds[name]:.1f} s a run", flush=True)
    table(results, seconds)


if __name__ == "__main__":
    main()
