"""FedCMOO: federated multi-objective optimisation with compressed Jacobians.

"Federated Communication-Efficient Multi-Objective Optimization" (AISTATS 2025, arXiv 2410.16398). In a round, client
c takes the gradients of its objectives at ``w[t]``, compresses the Jacobian, ``G_c ~ C_c B_c`` with B_c of shape
[r, P], and runs local steps on ``sum_i lam_i l_ci``; the server averages the clients' changes, and

    G    = sum_c p_c C_c B_c
    lam <- proj_simplex(lam - beta G G^T lam / mean_i(||G_i||)^2)      :mod:`strategies.task_weights.fedcmoo`

Upload: the model and r times the backbone; download: the model and lam.

Differences: the authors' rounds have two trips with a barrier between them, so that lam is that of the very model
which the clients then train. Here the Jacobian goes up with the update, and lam weighs the next round: one trip, and
weights that are one version older. The division by the mean length is in their code. The compression is the best
approximation of rank r; theirs is randomised. Heads follow their own objectives unweighted; in their code lam scales
heads, too, and the steps of lam may have momentum.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import GradientAggregator
from strategies.aggregators.gradient import SERVER_RATE
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.compressed_jacobian import CompressedJacobian, Rank
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.task_weights.fedcmoo import FedCMOOWeights
from strategies.task_weights.local import refuse_balancing
from strategies.weightings.options import WeightBase, base_weighting

PARTS = OptionsOf(FedCMOOWeights, Synchronous)
"""What this is composed of, whose options are its own, too."""


@method("synchronous", "Federated Communication-Efficient Multi-Objective Optimization", arxiv="2410.16398")
def fedcmoo(
    task_weights: TaskWeights | None = None,
    *,
    rank: Rank = 1,
    server_rate: Annotated[float, SERVER_RATE.by("paper", gt=None, ge=0)] = 1.0,
    weight_base: WeightBase = "uniform",
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """FedCMOO: the server weighs tasks by compressed Jacobians of the clients."""
    refuse_balancing(task_weights, "fedcmoo", "it weighs the tasks itself")
    of_weights, rounds = PARTS.divide(options)
    return FlowerStrategy(
        Synchronous(**rounds),
        GradientAggregator(base_weighting(weight_base), server_rate=server_rate),
        CompressedJacobian(rank=rank),
        FedCMOOWeights(rank=rank, **of_weights),
        name="fedcmoo",
    )
