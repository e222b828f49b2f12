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
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.fedqs_parts import (
    AdaptMomentum,
    Feedback,
    FeedbackSimilarity,
    FeedbackSpeed,
    FrequencyCap,
    GlobalStep,
    MeanFrequency,
    MomentumCap,
    MomentumGain,
    MomentumMin,
    Phi,
    RateChange,
    RateMax,
    RateMin,
    Similarity,
    SimilarityCap,
    SmallClass,
    Spread,
    fedqs_policy,
    fedqs_weights,
)
from strategies.methods import method
from strategies.options import (
    BufferRule,
    BufferSize,
    Clock,
    Concurrency,
    FlushSeconds,
    MaxBuffer,
    Tick,
    WeightBase,
    base_weighting,
)
from strategies.parts import TaskWeights
from strategies.schedulers import Buffered
from strategies.strategy import Strategy


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
    a: RateChange = 0.002,
    m0: MomentumMin = 0.1,
    k: MomentumGain = 2.0,
    momentum_cap: MomentumCap = 0.4,
    momentum: AdaptMomentum = True,
    frequency_cap: FrequencyCap = 9.0,
    similarity_cap: SimilarityCap = 2.0,
    rate_min: RateMin = 0.001,
    rate_max: RateMax = 0.2,
    spread: Spread = 30.0,
    small_class: SmallClass = 10.0,
    phi: Phi = None,
    weight_base: WeightBase = "uniform",
    feedback: Feedback = True,
    feedback_speed: FeedbackSpeed = "frequency",
    feedback_similarity: FeedbackSimilarity = "1+G^2",
    fbar: MeanFrequency = "active",
    similarity: Similarity = "angle",
    lg_source: GlobalStep = "previous",
    concurrency: Concurrency = None,
    buffer: BufferRule = "drain",
    clock: Clock = "event",
    tick: Tick = 1.0,
    max_buffer: MaxBuffer = None,
    flush_seconds: FlushSeconds = None,
) -> Strategy:
    """FedQS: semi-asynchronous, clients typed by speed and similarity."""
    weighting = fedqs_weights(
        base_weighting(weight_base),
        phi=phi,
        feedback=feedback,
        feedback_speed=feedback_speed,
        feedback_similarity=feedback_similarity,
        similarity_cap=similarity_cap,
        frequency_cap=frequency_cap,
    )
    policy = fedqs_policy(
        a=a,
        m0=m0,
        k=k,
        momentum_cap=momentum_cap,
        momentum=momentum,
        frequency_cap=frequency_cap,
        rate_min=rate_min,
        rate_max=rate_max,
        spread=spread,
        small_class=small_class,
        fbar=fbar,
        similarity=similarity,
        lg_source=lg_source,
    )
    return Strategy(
        Buffered(
            buffer_size,
            concurrency=concurrency,
            buffer=buffer,
            clock=clock,
            tick=tick,
            max_size=max_buffer,
            patience=flush_seconds,
        ),
        GradientAggregator(weighting) if aggregation == "gradient" else ModelAggregator(weighting),
        policy,
        task_weights,
        name="fedqs",
    )
