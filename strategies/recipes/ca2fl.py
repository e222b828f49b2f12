"""CA2FL: every client's last update is kept, and stands in for the client until its next one.

"Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update Calibration" (ICLR 2024). When K
updates S have arrived, with vectors of shape [P] and N clients,

    v = (1/N) sum_j h_j + (1/|S|) sum_{i in S} (Delta_i - h_i),    w <- w + eta_g v,    h_i <- Delta_i

with the h_j of before the step, 0 at first: fast clients do not outweigh slow ones, whose last direction still counts.
This demands a vector for each client (`cache`); the mean over all of them is kept up to date, so that a step costs
O(K P) whatever N.

Differences: the paper's code was not available. FedQS's version adds the mean K times and scales by 0.005; a library
never fills the cache, so that nothing is calibrated.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import CalibratedAggregator
from strategies.aggregators.gradient import SERVER_RATE
from strategies.aggregators.storage import Cache
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.schedulers.options import BaselineBufferSize
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "semi-asynchronous",
    "Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update Calibration",
)
def ca2fl(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: BaselineBufferSize = 10,
    server_rate: Annotated[float, SERVER_RATE.by("second-hand", gt=None, ge=0)] = 1.0,
    weight_base: WeightBase = "uniform",
    cache: Cache = "single",
    **buffer: Annotated[Any, OptionsOf(Buffered)],
) -> FlowerStrategy:
    """CA2FL: cached updates of all clients calibrate the buffered ones."""
    return FlowerStrategy(
        Buffered(buffer_size=buffer_size, **buffer),
        CalibratedAggregator(base_weighting(weight_base), server_rate=server_rate, cache=cache),
        task_weights=task_weights,
        name="ca2fl",
    )
