"""FSMGDA: federated multi-objective learning with a change of the model for each objective.

"Federated Multi-Objective Learning" (NeurIPS 2023, arXiv 2310.09866), with stochastic gradients. In a round, every
client c descends from ``w[t]`` on each of its own objectives i apart, which gives the changes ``D_ci`` of shape [P];
the server forms

    D_i    = sum_c p_ci D_ci                                    over the owners of i
    lam    = argmin over the simplex of ||sum_i lam_i D_i||^2
    w[t+1] = w[t] + eta_g sum_i lam_i D_i

The client's half is :mod:`clients.policies.tasks_apart`, the server's :mod:`strategies.aggregators.min_norm`. A
client with T tasks computes T times as much and uploads the backbone T times.

Differences: objectives of the paper share all parameters; here each has a head besides, which follows its own
objective and is averaged over its owners (code for multi-task models, askinb/FedCMOO, scales the heads' changes by
lam, too). Steps are clipped as the run's settings say.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators.gradient import SERVER_RATE
from strategies.aggregators.min_norm import MinNormAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.tasks_apart import TasksApart
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.task_weights.local import refuse_balancing
from strategies.weightings.options import WeightBase, base_weighting


@method("synchronous", "Federated Multi-Objective Learning", arxiv="2310.09866")
def fsmgda(
    task_weights: TaskWeights | None = None,
    *,
    server_rate: Annotated[float, SERVER_RATE.by("paper", gt=None, ge=0)] = 1.0,
    weight_base: WeightBase = "uniform",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """FSMGDA: tasks are trained apart, and the server takes the shortest common direction."""
    refuse_balancing(task_weights, "fsmgda", "it trains each task apart, and weighs them on the server")
    return FlowerStrategy(
        Synchronous(**rounds),
        MinNormAggregator(base_weighting(weight_base), server_rate=server_rate),
        TasksApart(),
        task_weights,
        name="fsmgda",
    )
