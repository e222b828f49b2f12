"""FedQS: clients are typed as fast or slow and biased or unbiased, adapt their training, and are weighted accordingly.

"FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning" (NeurIPS 2025, arXiv
2510.07664). Clients are always busy; when K updates have arrived, the first K make a server step, with vectors of
shape [P]:

    w[t+1] = w[t] + sum_i p_i Delta_i       FedQS-SGD, aggregation = "gradient"
    w[t+1] = sum_i p_i (base_i + Delta_i)   FedQS-Avg, aggregation = "model"

    f_i = n(i) / sum_j n(j)             share of the aggregated updates          :class:`strategies.ledger.Ledger`
    L_g = w[t] - w[t-1]                 pseudo-global gradient                   :mod:`strategies.policies.fedqs`
    theta_i = angle(L_g, L_i)           L_i is client i's last update            :mod:`fedmtl.similarity`
    F = min(f_bar / f_i, 9), G = theta_i / theta_bar; type, eta_i, m_i, bit      :mod:`clients.adaptation.fedqs`
    p_i ~ q_i [(e/2)^(phi - f_i) (1 + min(G, 2)^2)  if the bit is set]           :mod:`strategies.weightings.fedqs`

Differences from the authors' code: queued updates are snapshots, the bit and the angle travel with the update they
belong to, L_g really is formed, one angle is taken over the whole vector, the buffer is drained, and the base weight
q_i is 1/K as for the methods that it is compared with (theirs: by examples). Their overwriting of queued updates,
global arrays and per-tensor angles are faults and cannot be switched on. The paper's printed forms of F, G and phi
were not available; defaults marked "authors' code" are theirs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.similarity import SimilarityName
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.methods import method
from strategies.options import BufferRule, BufferSize, Clock, Concurrency, MaxBuffer, Tick, WeightBase, base_weighting
from strategies.parts import TaskWeights
from strategies.policies.fedqs import Adaptivity, FedQSPolicy
from strategies.schedulers import Buffered
from strategies.strategy import Strategy
from strategies.weightings import FedQSWeights

_CODE = "authors' code"


@method(
    "semi-asynchronous",
    "FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning",
    arxiv="2510.07664",
)
def fedqs(
    task_weights: TaskWeights | None = None,
    *,
    aggregation: Annotated[Literal["gradient", "model"], Param("FedQS-SGD or FedQS-Avg", source="paper")] = "gradient",
    buffer_size: BufferSize = 10,
    a: Annotated[float, Param("change of the learning rate per unit of F", ge=0, le=0.1, source=_CODE)] = 0.002,
    m0: Annotated[float, Param("least momentum of an unbiased client", ge=0, lt=1, source=_CODE)] = 0.1,
    k: Annotated[float, Param("gain of the momentum", ge=0, source=_CODE)] = 2.0,
    momentum_cap: Annotated[float, Param("most momentum beyond m0", ge=0, lt=1, source=_CODE)] = 0.4,
    momentum: Annotated[bool, Param("set momentum by client type; otherwise it stays training.momentum")] = True,
    frequency_cap: Annotated[float, Param("upper bound of F", gt=0, source=_CODE)] = 9.0,
    similarity_cap: Annotated[float, Param("upper bound of G in a weight", gt=0, source=_CODE)] = 2.0,
    rate_min: Annotated[float, Param("least learning rate after a change", gt=0, source=_CODE)] = 0.001,
    rate_max: Annotated[float, Param("largest learning rate after a change", gt=0, source=_CODE)] = 0.2,
    spread: Annotated[float, Param("spread of class accuracies of SBC-2, points", ge=0, le=100, source=_CODE)] = 30.0,
    small_class: Annotated[
        float, Param("held-out examples below which a class counts half", ge=0, source=_CODE)
    ] = 10.0,
    phi: Annotated[float | None, Param("phi of the speed factor; K/N if not set (the code: 0.1)", gt=0)] = None,
    weight_base: WeightBase = "uniform",
    feedback: Annotated[bool, Param("weights follow the feedback bit", source="paper")] = True,
    feedback_speed: Annotated[
        Literal["frequency", "ratio"], Param("what lowers the speed factor's exponent: f_i or F", source=_CODE)
    ] = "frequency",
    feedback_similarity: Annotated[
        Literal["1+G^2", "(1+G)^2"], Param("similarity factor of a weight", source=_CODE)
    ] = "1+G^2",
    fbar: Annotated[Literal["active", "all"], Param("clients that f_bar is the mean over", source=_CODE)] = "active",
    similarity: Annotated[SimilarityName, Param("measure between L_g and L_i", source=_CODE)] = "angle",
    lg_source: Annotated[
        Literal["previous", "since_last"],
        Param("server step: the last one, sent; or all since the client was last sent a model"),
    ] = "previous",
    concurrency: Concurrency = None,
    buffer: BufferRule = "drain",
    clock: Clock = "event",
    tick: Tick = 1.0,
    max_buffer: MaxBuffer = None,
) -> Strategy:
    """FedQS: semi-asynchronous, clients typed by speed and similarity."""
    weighting = FedQSWeights(
        base_weighting(weight_base),
        phi=phi,
        feedback=feedback,
        speed=feedback_speed,
        similarity=feedback_similarity,
        similarity_cap=similarity_cap,
        frequency_cap=frequency_cap,
    )
    adaptivity = Adaptivity(a, m0, k, momentum_cap, momentum, frequency_cap, rate_min, rate_max, spread, small_class)
    return Strategy(
        Buffered(buffer_size, concurrency=concurrency, buffer=buffer, clock=clock, tick=tick, max_size=max_buffer),
        GradientAggregator(weighting) if aggregation == "gradient" else ModelAggregator(weighting),
        FedQSPolicy(adaptivity, similarity=similarity, fbar=fbar, lg_source=lg_source),
        task_weights,
        name="fedqs",
    )
