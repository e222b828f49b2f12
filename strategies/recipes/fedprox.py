"""FedProx: clients are held near the global model, and stragglers do part of the work instead of being dropped.

"Federated Optimization in Heterogeneous Networks" (MLSys 2020, arXiv 1812.06127). Locally

    w <- w - eta (grad F_i(w) + mu (w - w[t])),        w[t+1] = sum_i (n_i / n) w_i

over the clients of a round, with vectors of shape [P]. Partial work: a share of the clients runs a random number of
their epochs (`stragglers`, as in the authors' experiments), or slow clients run as many steps as fit into a time
(`step_budget`). With mu = 0 and neither of them this is FedAvg.

Differences: the authors' code fixes how many clients of a round are stragglers; here each is one with that probability.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import ModelAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.proximal import Mu, Proximal, Stragglers
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings.options import WeightBase, base_weighting


@method("synchronous", "Federated Optimization in Heterogeneous Networks", arxiv="1812.06127")
def fedprox(
    task_weights: TaskWeights | None = None,
    *,
    mu: Mu = 0.01,
    stragglers: Stragglers = 0.0,
    weight_base: WeightBase = "data_size",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """FedProx: rounds with a proximal term and partial work."""
    aggregator = ModelAggregator(base_weighting(weight_base))
    return FlowerStrategy(
        Synchronous(**rounds), aggregator, Proximal(mu=mu, stragglers=stragglers), task_weights, name="fedprox"
    )
