"""M-step FedAsync (KAFL): the first M updates of any clients are averaged, by rarity and nearness.

"KAFL: Achieving High Training Efficiency for Fast-K Asynchronous Federated Learning" (ICDCS 2022). Clients are always
busy; when M updates have arrived, with the global model w_g, the clients' w_i, all of shape [P], and base weights b_i,

    w_g <- sum_i p_i w_i,    p_i ~ b_i exp(-2 lambda_i / q_i),    sum_i p_i = 1
    lambda_i = |<w_g, w_i> / <w_i, w_i> - 1|
    q_i = n(client at the reversed rank) / sum_j n(j)        n(j): applied updates       :class:`KAFLWeights`

A client goes on from its own model unless a newer global one exists (`start`).

Differences: the paper's own weights were not available; these are FedQS's authors' reading of it, without its faults:
there a zero q_i divides, a loop index is reset, and weights are normalised twice. Ranks are those within the
aggregation, and b_i is uniform as for the methods that it is compared with (theirs: by batches).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import ModelAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import OwnModel, Plain
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.schedulers.options import BaselineBufferSize
from strategies.weightings import KAFLWeights
from strategies.weightings.options import WeightBase, base_weighting


@method("semi-asynchronous", "KAFL: Achieving High Training Efficiency for Fast-K Asynchronous Federated Learning")
def mstep(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: BaselineBufferSize = 10,
    start: Annotated[
        Literal["own_model", "newest_global"],
        Param("what a client starts from where no newer model exists", source="authors' code of FedQS"),
    ] = "own_model",
    weight_base: WeightBase = "uniform",
    **buffer: Annotated[Any, OptionsOf(Buffered)],
) -> FlowerStrategy:
    """M-step FedAsync: the first M models are averaged; rare clients and those near the global model count more."""
    return FlowerStrategy(
        Buffered(buffer_size=buffer_size, **buffer),
        ModelAggregator(KAFLWeights(base_weighting(weight_base))),
        OwnModel() if start == "own_model" else Plain(),
        task_weights,
        name="mstep",
    )
