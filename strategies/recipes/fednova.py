"""FedNova: updates are normalised by the local work behind them, so that the right objective is minimised.

"Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization" (NeurIPS 2020, arXiv
2007.07481). Client i ends at y_i after tau_i steps whose gradients are accumulated with the weights a_i:

    d_i = (w[t] - y_i) / ||a_i||_1,     w[t+1] = w[t] - tau_eff sum_i p_i d_i,     p_i = n_i / n
    tau_eff = sum_i p_i ||a_i||_1       (with a proximal term: sum_i p_i tau_i)

Vectors have shape [P]. ``||a||_1`` is tau for SGD, ``sum_{k=1..tau} (1 - m^k) / (1 - m)`` with momentum m, and follows
``a <- (1 - eta mu) a + 1`` with a proximal term: :mod:`strategies.weightings.normalised`. The server computes it from
the steps, the momentum and the learning rate that come with every update. A server momentum is optional.

Differences: with momentum and a proximal term together the authors' code counts each step twice; here the recursion is
exact.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.server_optimizers import SERVER_MOMENTUM, SGD
from strategies.core.kinds import Aggregator, TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import Proximal
from strategies.policies.proximal import STRAGGLERS
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings import Normalised
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "synchronous",
    "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
    arxiv="2007.07481",
)
def fednova(
    task_weights: TaskWeights | None = None,
    *,
    mu: Annotated[float, Param("factor of a proximal term", ge=0, source="paper")] = 0.0,
    server_momentum: Annotated[float, SERVER_MOMENTUM.by("paper")] = 0.0,
    stragglers: Annotated[float, STRAGGLERS] = 0.0,
    weight_base: WeightBase = "data_size",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """FedNova: rounds of normalised updates."""
    aggregator: Aggregator = GradientAggregator(Normalised(base_weighting(weight_base), mu=mu))
    if server_momentum > 0:
        aggregator = Optimized(aggregator, SGD(momentum=server_momentum))
    policy = Proximal(mu=mu, stragglers=stragglers)
    return FlowerStrategy(Synchronous(**rounds), aggregator, policy, task_weights, name="fednova")
