"""FedBuff: buffered asynchronous aggregation.

"Federated Learning with Buffered Asynchronous Aggregation" (AISTATS 2022, arXiv 2106.06639). The server keeps
`concurrency` clients busy. A client's ``Delta_i`` is taken against the model that it was sent; after K updates

    w[t+1] = w[t] + eta_g (1/K) sum_i s(tau_i) Delta_i,    s(tau) = 1 / sqrt(1 + tau),

with the staleness tau_i in versions. Vectors have shape [P]; the weights do not sum to 1.

Differences: this is the paper's form. The authors' production code (FLSim) divides s by its value at the average
staleness (`normalise`; it reads that average from its configuration, here it is the aggregation's own), takes the step
with momentum, ``v <- beta v + D`` and ``w <- w + eta_g v`` (`server_momentum`; its sample has eta_g 0.7 and beta 0.9),
and turns down what is staler than `max_staleness`. One library divides by K twice, another takes ``Delta_i`` against
the current model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.gradient import SERVER_RATE
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Aggregator, TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.weightings import Discounted
from strategies.weightings.options import WeightBase, base_weighting
from strategies.weightings.staleness import EXPONENT, HingeStart, StalenessFunction


@method("semi-asynchronous", "Federated Learning with Buffered Asynchronous Aggregation", arxiv="2106.06639")
def fedbuff(
    task_weights: TaskWeights | None = None,
    *,
    server_rate: Annotated[float, SERVER_RATE.by("paper", gt=None, ge=0)] = 1.0,
    server_momentum: Annotated[float, Param("beta of the server's momentum", ge=0, lt=1)] = 0.0,
    staleness: StalenessFunction = "polynomial",
    a: Annotated[float, EXPONENT.by("paper")] = 0.5,
    b: HingeStart = 4.0,
    normalise: Annotated[
        Literal["none", "average"], Param("divide the discounts by the one at the aggregation's mean staleness")
    ] = "none",
    weight_base: WeightBase = "uniform",
    **buffer: Annotated[Any, OptionsOf(Buffered)],
) -> FlowerStrategy:
    """FedBuff: a buffer of K updates, each discounted by its staleness, is averaged and added."""
    base = base_weighting(weight_base)
    weighting = Discounted(base, function=staleness, a=a, b=b, relative=normalise == "average")
    aggregator: Aggregator = GradientAggregator(weighting, server_rate=server_rate)
    if server_momentum:
        aggregator = Optimized(GradientAggregator(weighting), SGD(server_rate, server_momentum))
    return FlowerStrategy(Buffered(**buffer), aggregator, task_weights=task_weights, name="fedbuff")
