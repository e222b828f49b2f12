"""FedYogi: the server takes its steps with Yogi.

"Adaptive Federated Optimization" (arXiv 2003.00295). FedAdam (:mod:`strategies.recipes.fedadam`) with another second
moment, which forgets large updates more slowly; D is the mean update of a round, and all are of shape [P]:

    m <- b1 m + (1 - b1) D
    v <- v - (1 - b2) D^2 sign(v - D^2)
    w[t+1] = w[t] + eta_g m / (sqrt(v) + eps)

The start, the batch-norm statistics and the differences are FedAdam's.
"""

from __future__ import annotations

from strategies.aggregators.server_optimizers import Yogi
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.fedadam import AdaptiveRate, Beta1, Beta2, Epsilon, FirstSecondMoment, adaptive
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.schedulers.options import ClientsPerRound, Late, OverCommit, StepBudget, Timeout
from strategies.weightings.options import WeightBase


@method("synchronous", "Adaptive Federated Optimization", arxiv="2003.00295")
def fedyogi(
    task_weights: TaskWeights | None = None,
    *,
    server_rate: AdaptiveRate = 0.01,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.99,
    eps: Epsilon = 0.001,
    v0: FirstSecondMoment = "eps_squared",
    clients_per_round: ClientsPerRound = None,
    over_commit: OverCommit = 1.0,
    timeout: Timeout = None,
    late: Late = "reject",
    step_budget: StepBudget = None,
    weight_base: WeightBase = "data_size",
) -> FlowerStrategy:
    """FedYogi: rounds with Yogi on the server."""
    scheduler = Synchronous(
        clients_per_round=clients_per_round,
        over_commit=over_commit,
        timeout=timeout,
        late=late,
        step_budget=step_budget,
    )
    aggregator = adaptive(Yogi, weight_base, server_rate=server_rate, beta1=beta1, beta2=beta2, eps=eps, v0=v0)
    return FlowerStrategy(scheduler, aggregator, task_weights=task_weights, name="fedyogi")
