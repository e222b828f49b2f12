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

from fedmtl.components import OptionsOf
from strategies.aggregators.server_optimizers import Yogi
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.fedadam import adaptive
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous

PARTS = OptionsOf(adaptive, Synchronous)
"""What this is composed of, whose options are its own, too."""


@method("synchronous", "Adaptive Federated Optimization", arxiv="2003.00295")
def fedyogi(task_weights: TaskWeights | None = None, **options: Annotated[Any, PARTS]) -> FlowerStrategy:
    """FedYogi: rounds with Yogi on the server."""
    of_optimizer, of_rounds = PARTS.divide(options)
    aggregator = adaptive(Yogi, **of_optimizer)
    return FlowerStrategy(Synchronous(**of_rounds), aggregator, task_weights=task_weights, name="fedyogi")
