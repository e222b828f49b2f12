"""FADAS: adaptive asynchronous optimisation.

"FADAS: Towards Federated Adaptive Asynchronous Optimization" (ICML 2024, arXiv 2407.18365). When M updates have
arrived, with vectors of shape [P] and the t-th server step,

    D = (1/M) sum_i Delta_i
    m <- b1 m + (1 - b1) D,   v <- b2 v + (1 - b2) D^2,   v_hat <- max(v_hat, v)
    w <- w + eta_t (m / (1 - b1^t)) / (sqrt(v_hat / (1 - b2^t)) + eps)

with the rate adapted to the largest staleness tau_max in the aggregation:

    eta_t = eta / tau_max if tau_max > tau_c, else eta       rate = "threshold", the authors' code
    eta_t = min(eta, 1 / tau_max)                            rate = "min", the paper's form

Without delay it is AMSGrad on the server. Batch-norm statistics are averaged, not optimised, as in the authors' code.

Differences: a library has v in place of v_hat under the root, and one re-implementation takes the step on integer
buffers only; both are faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from fedmtl.protocol import Update
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.server_optimizers import MOMENT1, MOMENT2, ROOT_OFFSET, AMSGrad
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.schedulers.options import BufferSize
from strategies.weightings.options import WeightBase, base_weighting

_CODE = "authors' code"


class DelayAdaptiveRate:
    """eta_t, from the largest staleness of the updates.

    Parameters
    ----------
    eta
        The rate without delay.
    tau_c
        Staleness up to which the rate is eta; None for the form ``min(eta, 1 / tau_max)``.
    """

    def __init__(self, eta: float, tau_c: int | None) -> None:
        self.eta = eta
        self.tau_c = tau_c

    def __call__(self, updates: Sequence[Update], version: int) -> float:
        """The rate of a step that makes `version + 1`."""
        tau_max = max(version - update.base_version for update in updates)
        if self.tau_c is None:
            return min(self.eta, 1.0 / tau_max) if tau_max else self.eta
        # Without delay there is nothing to divide by, whatever tau_c.
        return self.eta / tau_max if tau_max > self.tau_c else self.eta


@method("semi-asynchronous", "FADAS: Towards Federated Adaptive Asynchronous Optimization", arxiv="2407.18365")
def fadas(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: BufferSize = 5,
    server_rate: Annotated[float, Param("eta", gt=0, source=_CODE)] = 0.001,
    beta1: Annotated[float, MOMENT1.by(_CODE)] = 0.9,
    beta2: Annotated[float, MOMENT2.by(_CODE)] = 0.99,
    eps: Annotated[float, ROOT_OFFSET.by(_CODE)] = 1e-8,
    rate: Annotated[Literal["threshold", "min"], Param("how staleness lowers the rate", source=_CODE)] = "threshold",
    tau_c: Annotated[int, Param("staleness up to which the rate is eta", ge=0, source=_CODE)] = 1,
    weight_base: WeightBase = "uniform",
    **buffer: Annotated[Any, OptionsOf(Buffered)],
) -> FlowerStrategy:
    """FADAS: AMSGrad on the mean of a buffer of updates, with smaller steps where these are stale."""
    optimizer = AMSGrad(server_rate, beta1, beta2, eps, v0=0.0, bias_correction=True)
    schedule = DelayAdaptiveRate(server_rate, tau_c if rate == "threshold" else None)
    return FlowerStrategy(
        Buffered(buffer_size=buffer_size, **buffer),
        Optimized(GradientAggregator(base_weighting(weight_base)), optimizer, schedule),
        task_weights=task_weights,
        name="fadas",
    )
