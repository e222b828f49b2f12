"""FedAvgM: the server takes its steps with momentum.

"Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification" (arXiv 1909.06335). With
the mean update of a round, ``D = sum_i (n_i / n) Delta_i``, and the velocity v, both of shape [P]:

    v <- beta v + D,     w[t+1] = w[t] + eta_g v

Batch-norm statistics are averaged. With beta = 0 and eta_g = 1 this is FedAvg bit for bit.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import ModelAggregator, Optimized
from strategies.aggregators.gradient import SERVER_RATE
from strategies.aggregators.server_optimizers import SERVER_MOMENTUM, SGD
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "synchronous",
    "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    arxiv="1909.06335",
)
def fedavgm(
    task_weights: TaskWeights | None = None,
    *,
    beta: Annotated[float, SERVER_MOMENTUM.by("paper")] = 0.9,
    server_rate: Annotated[float, SERVER_RATE.by("paper")] = 1.0,
    weight_base: WeightBase = "data_size",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """FedAvgM: rounds with server momentum."""
    aggregator = Optimized(ModelAggregator(base_weighting(weight_base)), SGD(server_rate, beta))
    return FlowerStrategy(Synchronous(**rounds), aggregator, task_weights=task_weights, name="fedavgm")
