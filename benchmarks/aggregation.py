"""What a server step costs, over one pass of `torch.mv` on the same data: every rule that is linear in the updates.

    .venv/bin/python -m benchmarks.aggregation [--updates 10,50] [--parameters 50000,200000,1000000] [--rules FedBuff]

K updates of P floats are rows of one matrix. `torch.mv` multiplies it with K weights; a rule is given the rows as
updates, and takes the whole server step: weights, sum, optimiser, caches. Both take turns on one thread; a ratio is the
median over the windows, of processor times. "cold": there are so many matrices that none is in the cache when its turn
comes, as with updates that arrived in the course of training; "hot": one matrix, again and again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedmtl.parameters import ParameterLayout, weighted_sum
from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators import (
    CachedModels,
    CalibratedAggregator,
    GradientAggregator,
    ModelAggregator,
    Optimized,
    TierModels,
)
from strategies.aggregators.dual import DualAveraged
from strategies.aggregators.server_optimizers import SGD, Adam
from strategies.core.kinds import Aggregator, Step
from strategies.core.ledger import Ledger
from strategies.core.part import prepare
from strategies.schedulers import LagTolerant, Tiered
from strategies.weightings import DataSize, Uniform


class Twice(Aggregator):
    """No rule: it adds up the updates and as many vectors of the step before, which a cache has to read at least."""

    def __init__(self) -> None:
        self._before: list[Tensor] = []

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The sum."""
        deltas = [update.delta for update in step.updates]
        weights = [1.0 / len(deltas)] * len(deltas) + [-1.0 / len(deltas)] * len(self._before)
        vector = weighted_sum([*deltas, *self._before], weights, step.model.vector)
        self._before = deltas
        return vector, ()


class Thirds(Tiered):
    """Three tiers that are there from the start."""

    @property
    def tiers(self) -> int:
        """Three."""
        return 3

    def tier_of(self, client: int) -> int:
        """By the client's number."""
        return client % 3


RULES: dict[str, Callable[[], Aggregator]] = {
    "gradient (FedBuff, FedSGD)": lambda: GradientAggregator(Uniform()),
    "gradient, a task for each client": lambda: GradientAggregator(Uniform()),
    "model (FedAvg)": lambda: ModelAggregator(DataSize()),
    "model, five stale versions": lambda: ModelAggregator(DataSize()),
    "server momentum (FedAvgM)": lambda: Optimized(ModelAggregator(DataSize()), SGD(momentum=0.9)),
    "server Adam (FedAdam, FADAS)": lambda: Optimized(ModelAggregator(DataSize()), Adam()),
    "tiers (FedAT)": lambda: TierModels(DataSize(), Thirds()),
    "dual variables (FedSpeed)": lambda: DualAveraged(Uniform()),
    "updates and as many caches, added up": Twice,
    "caches of updates (CA2FL)": lambda: CalibratedAggregator(Uniform()),
    "caches of models (SAFA)": lambda: CachedModels(LagTolerant()),
}
_CACHE = 96 << 20  # bytes; more than the caches hold
_VERSION = 5


class Data:
    """Matrices of K rows and P columns, and the server steps of which they are the updates."""

    def __init__(self, updates: int, parameters: int, *, cold: bool, stale: bool = False, tasks: int = 1) -> None:
        size = 4 * updates * parameters
        generator = torch.Generator().manual_seed(0)
        count = max(2, math.ceil(_CACHE / size)) if cold else 1  # a cache must not be given what it has already
        self.repeats = max(1, round((_CACHE if cold else _CACHE // 4) / (size * count)))
        self.matrices = [torch.randn(updates, parameters, generator=generator) for _ in range(count)]
        self.weights = torch.full((updates,), 1.0 / updates)
        shared = parameters if tasks == 1 else parameters // 2
        cuts = [shared + (parameters - shared) * task // tasks for task in range(tasks + 1)]
        heads = tuple(slice(start, stop) for start, stop in itertools.pairwise(cuts))
        layout = ParameterLayout((), slice(0, shared), heads, slice(parameters, parameters))
        vectors = [torch.randn(parameters, generator=generator) for _ in range(_VERSION + count)]
        older = dict(enumerate(vectors[:_VERSION]))
        models = [GlobalModel(_VERSION, vector, layout) for vector in vectors[_VERSION:]]
        self.model = models[0]
        self.steps = [
            self._step(matrix, model, older, tasks, stale=stale)
            for matrix, model in zip(self.matrices, models, strict=True)
        ]

    def _step(self, matrix: Tensor, model: GlobalModel, older: dict[int, Tensor], tasks: int, *, stale: bool) -> Step:
        updates = [
            Update(client, 0, client % _VERSION if stale else _VERSION, delta, 10 + client, 1, (client % tasks,))
            for client, delta in enumerate(matrix)
        ]
        ledger = Ledger()
        ledger.met(range(len(updates)))
        for update in updates:
            ledger.received(update)
        return Step(model, updates, older | {_VERSION: model.vector}, "full", frozenset(), ledger)


def ratio(data: Data, call: Callable[[Step], object], windows: int) -> tuple[float, float]:
    """Processor time of `call` on every step over that of `torch.mv`, and its microseconds per step: the medians."""

    def spent(run: Callable[[], object]) -> float:
        started = time.thread_time()
        for _ in range(data.repeats):
            run()
        return (time.thread_time() - started) / data.repeats / len(data.steps) * 1e6

    def multiply() -> None:
        for matrix in data.matrices:
            torch.mv(matrix.T, data.weights)

    def aggregate() -> None:
        for step in data.steps:
            call(step)

    multiply()
    aggregate()
    pairs = [(spent(multiply), spent(aggregate)) for _ in range(windows)]
    return statistics.median(ours / floor for floor, ours in pairs), statistics.median(ours for _, ours in pairs)


def bare_sum(step: Step) -> Tensor:
    """The sum alone."""
    weights = [1.0 / len(step.updates)] * len(step.updates)
    return weighted_sum([update.delta for update in step.updates], weights, step.model.vector)


def print_sums(updates: Sequence[int], parameters: Sequence[int], windows: int) -> None:
    """A table of the sum alone."""
    print(f"{'weighted_sum':34} {'P':>9} {'K':>4} {'hot':>6} {'us':>9} {'cold':>6} {'us':>9}")
    for size in parameters:
        for count in updates:
            hot = ratio(Data(count, size, cold=False), bare_sum, windows)
            cold = ratio(Data(count, size, cold=True), bare_sum, windows)
            print(f"{'':34} {size:9} {count:4} {hot[0]:6.2f} {hot[1]:9.1f} {cold[0]:6.2f} {cold[1]:9.1f}", flush=True)


def print_rules(updates: Sequence[int], parameters: Sequence[int], windows: int, only: str) -> None:
    """A table of all rules, cold."""
    cells = [(count, size) for size in parameters for count in updates]
    print(f"{'rule, cold; K x P':34} " + " ".join(f"{f'{count} x {size}':>12}" for count, size in cells))
    for name, make in RULES.items():
        if only not in name:
            continue
        print(f"{name:34}", end="", flush=True)
        for count, size in cells:
            data = Data(count, size, cold=True, stale="stale" in name, tasks=2 if "task" in name else 1)
            rule = make()
            prepare([rule], data.model, 0)
            print(f" {ratio(data, rule.aggregate, windows)[0]:12.2f}", end="", flush=True)
        print()


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", default="2,10,50,100", help="K of the sums; the rules take those up to 50")
    parser.add_argument("--parameters", default="10000,50000,200000,1000000")
    parser.add_argument("--windows", type=int, default=7)
    parser.add_argument("--rules", default="", help="measure the rules whose name contains this, and not the sum alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    updates, parameters = ([int(n) for n in text.split(",")] for text in (options.updates, options.parameters))
    if not options.rules:
        print_sums(updates, parameters, options.windows)
    few = [count for count in updates if 10 <= count <= 50]
    print_rules(few, [size for size in parameters if size >= 50_000], options.windows, options.rules)


if __name__ == "__main__":
    main()
