"""FedSGD in semi-asynchronous learning: add the mean of K updates to the current model.

Section 2 of "FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning" (arXiv
2510.07664), whose name for gradient aggregation this is. Clients are always busy and upload ``Delta_i = w_i -
w_start``, the difference that E local epochs made and not one gradient; when K updates have arrived, ``w[t+1] = w[t]
+ sum_i p_i Delta_i`` over the first K of them, with ``p_i = 1/K``. Vectors have shape [P].

Differences from the authors' code: what is queued is a snapshot (theirs is overwritten by the client's next job, as
with ``updates = "ref_overwrite"``), and a server step is taken as often as K updates wait (``buffer = "one_per_tick"``
takes theirs, one per tick; ``tick_order = "client"`` has their order within a tick).
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import GradientAggregator
from strategies.aggregators.reference_faults import Updates, with_faults
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "semi-asynchronous",
    "FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning",
    arxiv="2510.07664",
)
def fedsgd(
    task_weights: TaskWeights | None = None,
    *,
    weight_base: WeightBase = "uniform",
    updates: Updates = "snapshot",
    **buffer: Annotated[Any, OptionsOf(Buffered)],
) -> FlowerStrategy:
    """FedSGD in semi-asynchronous learning: a buffer of K updates is averaged and added."""
    aggregator = with_faults(GradientAggregator(base_weighting(weight_base)), updates=updates)
    return FlowerStrategy(Buffered(**buffer), aggregator, task_weights=task_weights, name="fedsgd")
