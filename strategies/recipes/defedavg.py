"""DeFedAvg: delayed federated averaging.

"Achieving Linear Speedup in Asynchronous Federated Learning with Heterogeneous Clients" (arXiv 2402.11198). Clients
train at their own pace, each from the model that it was sent last, however stale; a server step takes n of the delayed
updates, with vectors of shape [P]:

    w <- w + (eta_g / n) sum_i Delta_i

`sampling` "uniform" draws the n at random from all that have arrived and were not drawn yet, at most once per tick;
every update stays until it is drawn (:class:`strategies.schedulers.pooled.Pooled`). "fifo" takes the first n as soon as
there are n.

Differences: the paper's non-IID variant draws the clients when it sends the model, not when it aggregates; this is
FedQS's authors' version of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.aggregators import GradientAggregator
from strategies.aggregators.gradient import SERVER_RATE
from strategies.core.kinds import Scheduler, TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered, Pooled
from strategies.schedulers.options import BaselineBufferSize, Concurrency
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "asynchronous",
    "Achieving Linear Speedup in Asynchronous Federated Learning with Heterogeneous Clients",
    arxiv="2402.11198",
)
def defedavg(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: BaselineBufferSize = 10,
    server_rate: Annotated[float, SERVER_RATE.by("paper", gt=None, ge=0)] = 1.0,
    sampling: Annotated[
        Literal["uniform", "fifo"],
        Param("draw from all that wait, once per tick, or take the first", source="authors' code of FedQS"),
    ] = "uniform",
    tick: Annotated[
        float, Param("seconds after which a uniform draw returns to a pool that still holds enough", gt=0)
    ] = 1.0,
    weight_base: WeightBase = "uniform",
    concurrency: Concurrency = None,
) -> FlowerStrategy:
    """DeFedAvg: the mean of n delayed updates, drawn from all that have arrived."""
    scheduler: Scheduler = Buffered(buffer_size=buffer_size, concurrency=concurrency)
    if sampling == "uniform":
        scheduler = Pooled(buffer_size=buffer_size, concurrency=concurrency, tick=tick)
    aggregator = GradientAggregator(base_weighting(weight_base), server_rate=server_rate)
    return FlowerStrategy(scheduler, aggregator, task_weights=task_weights, name="defedavg")
