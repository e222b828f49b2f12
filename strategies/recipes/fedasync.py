"""FedAsync: every arriving model is mixed into the global one.

"Asynchronous Federated Optimization" (arXiv 1903.03934). On the arrival of client i's model w_i, tau versions behind,

    w <- (1 - alpha_t) w + alpha_t w_i,    alpha_t = alpha s(tau),

with s constant, polynomial ``(1 + tau)^-a`` or hinge ``1 / (a (tau - b) + 1)`` beyond b; locally each client
minimises its loss plus ``rho/2 ||w - w_start||^2``. Vectors have shape [P].

Differences: two libraries leave out the hinge's ``+ 1``, or add b to tau; here it is the paper's.
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from strategies.aggregators import ModelAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import Proximal
from strategies.recipes.papers import method
from strategies.schedulers import Asynchronous
from strategies.schedulers.options import Concurrency
from strategies.weightings import Discounted, Uniform
from strategies.weightings.staleness import EXPONENT, HINGE_START, StalenessFunction


@method("asynchronous", "Asynchronous Federated Optimization", arxiv="1903.03934")
def fedasync(
    task_weights: TaskWeights | None = None,
    *,
    alpha: Annotated[float, Param("weight of a fresh model", ge=0, le=1, source="authors' code of APPFL")] = 0.9,
    staleness: StalenessFunction = "polynomial",
    a: Annotated[float, EXPONENT.by("authors' code of APPFL")] = 0.5,
    b: Annotated[float, HINGE_START.by("authors' code of APPFL")] = 4.0,
    rho: Annotated[float, Param("factor of the clients' proximal term", ge=0, source="second-hand")] = 0.005,
    concurrency: Concurrency = None,
) -> FlowerStrategy:
    """FedAsync: each model is mixed into the global one when it arrives, the less the staler it is."""
    weighting = Discounted(Uniform(), function=staleness, a=a, b=b, factor=alpha)
    return FlowerStrategy(
        Asynchronous(concurrency=concurrency),
        ModelAggregator(weighting),
        Proximal(mu=rho),
        task_weights,
        name="fedasync",
    )
