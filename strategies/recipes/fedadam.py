"""FedAdam: the server takes its steps with Adam.

"Adaptive Federated Optimization" (arXiv 2003.00295). With the mean update of a round, ``D = sum_i (n_i / n) Delta_i``,
and the moments m and v, all of shape [P], m = 0 and v = eps^2 at the start, without correction of the bias:

    m <- b1 m + (1 - b1) D
    v <- b2 v + (1 - b2) D^2
    w[t+1] = w[t] + eta_g m / (sqrt(v) + eps)

Batch-norm statistics are averaged.

Differences: some codes start at v = 0 (`v0 = "zero"`), which makes the first steps long.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import ModelAggregator, Optimized
from strategies.aggregators.gradient import SERVER_RATE
from strategies.aggregators.server_optimizers import MOMENT1, MOMENT2, ROOT_OFFSET, Adam
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings.options import WeightBase, base_weighting

_CODE = "authors' code of FedCompass"


def adaptive(
    optimizer: type[Adam],
    *,
    server_rate: Annotated[float, SERVER_RATE.by(_CODE)] = 0.01,
    beta1: Annotated[float, MOMENT1.by(_CODE)] = 0.9,
    beta2: Annotated[float, MOMENT2.by(_CODE)] = 0.99,
    eps: Annotated[float, ROOT_OFFSET.by(_CODE)] = 0.001,
    v0: Annotated[Literal["eps_squared", "zero"], Param("second moment at the start", source="paper")] = "eps_squared",
    weight_base: WeightBase = "data_size",
) -> Optimized:
    """The mean of the clients' models, towards which Adam, or one of its kind, takes the step."""
    start = 0.0 if v0 == "zero" else None
    return Optimized(ModelAggregator(base_weighting(weight_base)), optimizer(server_rate, beta1, beta2, eps, v0=start))


PARTS = OptionsOf(adaptive, Synchronous)
"""What this is composed of, whose options are its own, too."""


@method("synchronous", "Adaptive Federated Optimization", arxiv="2003.00295")
def fedadam(task_weights: TaskWeights | None = None, **options: Annotated[Any, PARTS]) -> FlowerStrategy:
    """FedAdam: rounds with Adam on the server."""
    of_optimizer, of_rounds = PARTS.divide(options)
    aggregator = adaptive(Adam, **of_optimizer)
    return FlowerStrategy(Synchronous(**of_rounds), aggregator, task_weights=task_weights, name="fedadam")
