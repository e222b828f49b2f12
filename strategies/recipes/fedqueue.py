"""FedQueue: rounds of a fixed length where jobs wait in queues.

A method of the APPFL framework; no paper was found. For client i with expected wait q_i and t_i seconds per step, a
round of length T, models of shape [P], and the base rate eta,

    steps_i = (T - q_i - safety) / t_i  (at least 1, finite),    eta_i = eta min_j steps_j / steps_i
    an update is admitted if its wait was at most q_i + 0.2 T, otherwise it goes into the next round
    at the round's end, at most after 1.15 T:   w <- sum_i p_i w_i,   p_i = steps_i / sum_j steps_j

(:class:`strategies.schedulers.queued.Queued`). q_i is an exponential mean.

Differences: a server sees a job's duration only, so wait and seconds per step are separated by an affine fit over
jobs of different lengths, where APPFL's clients report both; a budget below one step still gives one; late updates
are applied exactly once. APPFL's rounds take an hour, with a minute kept free.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.core.kinds import Aggregator, TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import ScaledRate
from strategies.recipes.papers import method
from strategies.schedulers import Queued
from strategies.weightings import LocalSteps

_CODE = "authors' code"


@method("semi-asynchronous", "FedQueue, a scheduler of the software APPFL, for which no paper was found")
def fedqueue(
    task_weights: TaskWeights | None = None,
    *,
    aggregation: Annotated[
        Literal["model", "gradient"], Param("average models, or add updates", source=_CODE)
    ] = "model",
    **queue: Annotated[Any, OptionsOf(Queued)],
) -> FlowerStrategy:
    """FedQueue: steps are fitted to rounds of a fixed length beside each client's expected wait in its queue."""
    scheduler = Queued(**queue)
    aggregator: Aggregator = ModelAggregator(LocalSteps())
    if aggregation == "gradient":
        aggregator = GradientAggregator(LocalSteps())
    return FlowerStrategy(scheduler, aggregator, ScaledRate(scheduler), task_weights, name="fedqueue")
