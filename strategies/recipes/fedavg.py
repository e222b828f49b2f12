"""FedAvg: average the clients' models, in rounds or semi-asynchronously.

"Communication-Efficient Learning of Deep Networks from Decentralized Data" (arXiv 1602.05629).

Synchronous (`fedavg`): all clients S of a round start from ``w[t]`` and ``w[t+1] = sum_{i in S} (n_i / n) w_i``,
where n_i counts client i's examples and n is their sum over S. Vectors have shape [P].

Semi-asynchronous (`fedavg-safl`): clients are always busy; when K updates have arrived, ``w[t+1] = sum_i p_i w_i``
over the first K of them, with ``p_i = 1/K`` (section 2 of the FedQS paper, arXiv 2510.07664; its authors' code uses
1/K here, too). A stale w_i pulls the model back to where that client started. With ``updates = "ref_overwrite"`` what
is queued is overwritten by the client's next job, as in that code; ``tick_order = "client"`` has its order in a tick.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import ModelAggregator
from strategies.aggregators.reference_faults import Updates, with_faults
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered, Synchronous
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "synchronous",
    "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    arxiv="1602.05629",
)
def fedavg(
    task_weights: TaskWeights | None = None,
    *,
    weight_base: WeightBase = "data_size",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """FedAvg: synchronous rounds, models averaged by examples."""
    aggregator = ModelAggregator(base_weighting(weight_base))
    return FlowerStrategy(Synchronous(**rounds), aggregator, task_weights=task_weights, name="fedavg")


@method(
    "semi-asynchronous",
    "FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning",
    arxiv="2510.07664",
)
def fedavg_safl(
    task_weights: TaskWeights | None = None,
    *,
    weight_base: WeightBase = "uniform",
    updates: Updates = "snapshot",
    **buffer: Annotated[Any, OptionsOf(Buffered)],
) -> FlowerStrategy:
    """FedAvg in semi-asynchronous learning: a buffer of K models is averaged."""
    aggregator = with_faults(ModelAggregator(base_weighting(weight_base)), updates=updates)
    return FlowerStrategy(Buffered(**buffer), aggregator, task_weights=task_weights, name="fedavg-safl")
