"""A server optimiser behind any aggregator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from torch import Tensor

from fedmtl.components import Param
from fedmtl.protocol import Update
from strategies.aggregators.gradient import ServerRate
from strategies.aggregators.server_optimizers import SGD, Adam, AMSGrad, Beta, RootOffset, ServerOptimizer, Yogi
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

    Examples
    --------
    The mean of the updates goes into a heavy ball, and so the second step is longer:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator, Optimized
    >>> from strategies.aggregators.server_optimizers import SGD
    >>> from strategies.core.kinds import Step
    >>> from strategies.core.part import prepare
    >>> from strategies.weightings import Uniform
    >>> model = toy_model([0.0, 0.0])
    >>> aggregator = Optimized(GradientAggregator(Uniform()), SGD(momentum=0.5))
    >>> prepare([aggregator], model, seed=0)
    >>> for job in range(2):
    ...     aggregator.aggregate(Step.of(model, [toy_update(0, [2.0, 4.0], job=job)]))
    (tensor([2., 4.]), (1.0,))
    (tensor([3., 6.]), (1.0,))
    """

    no_rule = ""

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

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """The base's."""
        return self.base.statistics(step, proposed, weights)


def optimised(
    base: Aggregator,
    *,
    optimizer: Annotated[Literal["sgd", "adam", "yogi", "amsgrad"], Param("the server's optimiser")] = "sgd",
    server_rate: ServerRate = 1.0,
    momentum: Annotated[float, Param("beta of sgd", ge=0, lt=1)] = 0.9,
    beta1: Beta = 0.9,
    beta2: Beta = 0.99,
    eps: RootOffset = 1e-3,
) -> Optimized:
    """Another aggregator proposes a model, and a server optimiser takes the step towards it.

    A configuration has one flat section for the aggregator and its optimiser, of which each kind reads the options that
    it has; so they are this function's and not those of :class:`Optimized`, which is given an optimiser.
    """
    kinds: dict[str, type[Adam]] = {"adam": Adam, "yogi": Yogi, "amsgrad": AMSGrad}
    if optimizer == "sgd":
        return Optimized(base, SGD(server_rate, momentum))
    return Optimized(base, kinds[optimizer](server_rate, beta1, beta2, eps))
