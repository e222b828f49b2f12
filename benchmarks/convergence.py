"""What `records.convergence` costs: processor time of its measurements over that of the run which they are taken in.

    .venv/bin/python -m benchmarks.convergence [--versions 100] [--windows 5] [--set strategy.name=fedavg]

A run of the main job is watched without the switch, and its models and updates are kept. Then every server step is
measured, and every evaluated version evaluated with the clients' losses and without. The updates of a run are more than
caches hold, so that each is read as if it had just arrived. One thread; medians over the windows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from fedmtl.evaluation import Evaluator
from fedmtl.protocol import Aggregation, GlobalModel
from fedmtl.records.convergence import ConvergenceWatch, loss_variance
from simulations import Experiment, run
from strategies.core.loop import Loop, Observer


class Kept(Observer):
    """Keeps the versions of a run, and the steps between them."""

    def __init__(self) -> None:
        self.models: list[GlobalModel] = []
        self.steps: list[Aggregation] = []

    def on_start(self, loop: Loop) -> None:
        """Keep version 0."""
        self.models.append(loop.strategy.model)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Keep a step and its version."""
        self.models.append(loop.strategy.model)
        self.steps.append(aggregation)


def spent(work: Callable[[], object]) -> float:
    """Seconds of processor time."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(kept: Kept, clients: int) -> None:
    """Take the statistics of every step."""
    watch = ConvergenceWatch(range(clients // 2))
    watch.begin(kept.models[0])
    for step, model in zip(kept.steps, kept.models[1:], strict=True):
        watch.measure(step, model)


def evaluate(evaluator: Evaluator, kept: Kept, every: int) -> None:
    """Evaluate the versions that are due."""
    for model in kept.models[::every]:
        evaluator.evaluate(model, 0.0)
        if evaluator.client_losses is not None:
            loss_variance(evaluator.client_losses)


def main() -> None:
    """Measure and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the experiment")
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = Experiment.load(None, [f"stop.versions={options.versions}", *options.set])
    data, seconds, every = experiment.data, experiment.nominal_seconds, experiment.config.records.evaluate_every
    plain, taking = (Evaluator(experiment.new_model(), data, seconds, client_losses=on) for on in (False, True))
    rows = []
    for _ in range(options.windows):
        kept = Kept()
        with tempfile.TemporaryDirectory() as folder:
            whole = spent(partial(run, experiment, Path(folder) / "run", observers=[kept], pictures=False))
        losses = spent(partial(evaluate, taking, kept, every)) - spent(partial(evaluate, plain, kept, every))
        rows.append((whole, spent(partial(measure, kept, data.clients)), losses))
    whole, steps, losses = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{options.versions} versions of {experiment.layout.size:,} parameters: {whole:.2f} s of processor time")
    print(f"server steps: {steps / options.versions * 1e6:.0f} us each, {steps / whole:.2%} of the run")
    print(f"clients' losses: {losses / whole:.2%} of the run")


if __name__ == "__main__":
    main()
