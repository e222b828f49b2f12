"""FedYogi: the server takes its steps with Yogi.

"Adaptive Federated Optimization" (arXiv 2003.00295). FedAdam (:mod:`strategies.recipes.fedadam`) with another second
moment, which forgets large updates more slowly; D is the mean update of a round, and all are of shape [P]:

    m <- b1 m + (1 - b1) D
    v <- v - (1 - b2) D^2 sign(v - D^2)
    w[t+1] = w[t] + eta_g m / (sqrt(v) + eps)

The start, the batch-norm statistics and the differences are FedAdam's.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf, by_builder
from strategies.aggregators.server_optimizers import Yogi
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.fedadam import adaptive
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous


@method("synchronous", "Adaptive Federated Optimization", arxiv="2003.00295")
def fedyogi(
    task_weights: TaskWeights | None = None, **options: Annotated[Any, OptionsOf(adaptive, Synchronous)]
) -> FlowerStrategy:
    """FedYogi: rounds with Yogi on the server."""
    step, rounds = by_builder(options, adaptive, Synchronous)
    return FlowerStrategy(Synchronous(**rounds), adaptive(Yogi, **step), task_weights=task_weights, name="fedyogi")
