"""A server optimiser behind any aggregator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fedmtl.protocol import Update
from strategies.aggregators.server_optimizers import ServerOptimizer
from strategies.core.kinds import Aggregator, Step

Rate = Callable[[Sequence[Update], int], float]
"""eta_g of a step from its updates and the server's version before it."""


class Optimized(Aggregator):
    """Another aggregator proposes a model, and an optimiser takes the step towards it.

    The optimiser acts on the trainable part; batch-norm statistics are as proposed.

    Parameters
    ----------
    base
        Proposes.
    optimizer
        Takes the step.
    rate
        The step's eta_g, where it depends on the updates; None for the optimiser's own.
    """

    def __init__(self, base: Aggregator, optimizer: ServerOptimizer, rate: Rate | None = None) -> None:
        self.base = base
        self.optimizer = optimizer
        self.rate = rate
        self.averages_models = base.averages_models

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Take the step; the weights are those of the proposal."""
        vector, weights = self.base.aggregate(step)
        trainable = step.model.layout.trainable
        rate = None if self.rate is None else self.rate(step.updates, step.model.version)
        self.optimizer.step(step.model.vector[trainable], vector[trainable], rate)
        return vector, weights
