"""SAFA: a semi-asynchronous protocol that tolerates lag and caches every client's model.

"SAFA: a Semi-Asynchronous Protocol for Fast Federated Learning with Low Overhead" (IEEE Transactions on Computers
70(5), 2021, arXiv 1910.01355). In round t, with models of shape [P] and m clients,

1. clients that are up to date, and deprecated ones (version < t - T), are sent w[t]; the others train on
2. the server picks updates up to a quota: first of clients not picked last round, then the fastest
3. cache_k = w_k for those picked, cache_k = w[t] for those deprecated
4. w[t+1] = sum_k (n_k / n) cache_k over all m clients
5. cache_k = w_k for those that arrived and were not picked

1 and 2 are :class:`strategies.schedulers.lag_tolerant.LagTolerant`, the rest is
:class:`strategies.aggregators.cached_models.CachedModels`. This demands a model for each client (`cache`): in memory
its update, and the version that this started from, once for all that started there. The sum is kept up to date, so that
a step costs O(K P) whatever m.

Differences: caches start at w[0] (FedQS's version: at 0, which shrinks the model for about as many rounds as the lag
tolerance), a client is deprecated by its version, and, as a busy client cannot be interrupted, a deprecated one starts
over when it delivers; that update is rejected. ``deprecated = "by_not_picked"`` is FedQS's version in this: a busy
client is deprecated that was not picked for more than T rounds, however new its model is.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import CachedModels
from strategies.aggregators.storage import Cache
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import LagTolerant
from strategies.schedulers.options import BaselineBufferSize
from strategies.weightings.options import WeightBase


@method(
    "semi-asynchronous",
    "SAFA: a Semi-Asynchronous Protocol for Fast Federated Learning with Low Overhead",
    arxiv="1910.01355",
)
def safa(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: BaselineBufferSize = 10,
    lag: Annotated[
        int, Param("T, versions that a busy client may be behind", ge=0, source="authors' code of FedQS")
    ] = 10,
    weight_base: WeightBase = "data_size",
    cache: Cache = "single",
    **options: Annotated[Any, OptionsOf(LagTolerant)],
) -> FlowerStrategy:
    """SAFA: rounds end with a quota, laggards are tolerated for a while, and every client's latest model counts."""
    scheduler = LagTolerant(buffer_size=buffer_size, lag=lag, **options)
    aggregator = CachedModels(scheduler, weight_base=weight_base, cache=cache)
    return FlowerStrategy(scheduler, aggregator, task_weights=task_weights, name="safa")
