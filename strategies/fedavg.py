"""FedAvg: average the clients' models, in rounds or semi-asynchronously.

"Communication-Efficient Learning of Deep Networks from Decentralized Data" (arXiv 1602.05629).

Synchronous (`fedavg`): all clients S of a round start from ``w[t]`` and ``w[t+1] = sum_{i in S} (n_i / n) w_i``,
where n_i counts client i's examples and n is their sum over S. Vectors have shape [P].

Semi-asynchronous (`fedavg-safl`): clients are always busy; when K updates have arrived, ``w[t+1] = sum_i p_i w_i``
over the first K of them, with ``p_i = 1/K`` (section 2 of the FedQS paper, arXiv 2510.07664; its authors' code uses
1/K here, too). A stale w_i pulls the model back to where that client started.
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from strategies.aggregators import ModelAggregator
from strategies.methods import method
from strategies.options import BufferRule, BufferSize, Clock, Concurrency, MaxBuffer, Tick, WeightBase, base_weighting
from strategies.parts import TaskWeights
from strategies.schedulers import Buffered, Synchronous
from strategies.strategy import Strategy


@method(
    "synchronous",
    "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    arxiv="1602.05629",
)
def fedavg(
    task_weights: TaskWeights | None = None,
    *,
    clients_per_round: Annotated[int | None, Param("clients drawn for a round; all if not set", ge=1)] = None,
    weight_base: WeightBase = "data_size",
) -> Strategy:
    """FedAvg: synchronous rounds, models averaged by examples."""
    aggregator = ModelAggregator(base_weighting(weight_base))
    return Strategy(Synchronous(clients_per_round), aggregator, task_weights=task_weights, name="fedavg")


@method(
    "semi-asynchronous",
    "FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning",
    arxiv="2510.07664",
)
def fedavg_safl(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: BufferSize = 10,
    concurrency: Concurrency = None,
    weight_base: WeightBase = "uniform",
    buffer: BufferRule = "drain",
    clock: Clock = "event",
    tick: Tick = 1.0,
    max_buffer: MaxBuffer = None,
) -> Strategy:
    """FedAvg in semi-asynchronous learning: a buffer of K models is averaged."""
    scheduler = Buffered(
        buffer_size, concurrency=concurrency, buffer=buffer, clock=clock, tick=tick, max_size=max_buffer
    )
    return Strategy(
        scheduler, ModelAggregator(base_weighting(weight_base)), task_weights=task_weights, name="fedavg-safl"
    )
