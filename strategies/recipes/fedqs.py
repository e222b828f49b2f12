"""FedQS: clients are typed as fast or slow and biased or unbiased, adapt their training, and are weighted accordingly.

"FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning" (NeurIPS 2025, arXiv
2510.07664). Clients are always busy; when K updates have arrived, the first K make a server step, with vectors of
shape [P]:

    w[t+1] = w[t] + sum_i p_i Delta_i       FedQS-SGD, aggregation = "gradient"
    w[t+1] = sum_i p_i (base_i + Delta_i)   FedQS-Avg, aggregation = "model"

    f_i = n(i) / sum_j n(j)             share of the aggregated updates          :class:`strategies.core.ledger.Ledger`
    L_g = w[t] - w[t-1]                 pseudo-global gradient                   :mod:`strategies.policies.fedqs`
    theta_i = angle(L_g, L_i)           L_i is client i's last update            :mod:`fedmtl.similarity`
    F = min(f_bar / f_i, 9), G = theta_i / theta_bar; type, eta_i, m_i, bit      :mod:`clients.policies.fedqs`
    p_i ~ q_i [(e/2)^(phi - f_i) (1 + min(G, 2)^2)  if the bit is set]           :mod:`strategies.weightings.fedqs`

The paper's printed forms of F, G and phi were not available; defaults marked "authors' code" are theirs. Their code
differs in what follows, each of which an option brings back, and the preset ``fedqs-reference`` all of them at once, to
compare with the published numbers, which were all made with it, and to see what each is worth:

- updates that wait are overwritten by what their clients train next     updates = "ref_overwrite"
- bit and angle are those of the client's newest job, not of the update  carry_meta = "global_arrays"
- L_g is not formed: w[t-1] takes its place                              lg_source = "ref_previous_model"
- the angle is a mean over tensors, each shifted to be non-negative      similarity = "ref_tensors"
- at most one aggregation per tick, and clients served by their numbers  buffer, clock, tick_order
- weights by examples, whereas the methods compared with have 1/K; phi   weight_base = "data_size", phi = 0.1
- momentum stays 0                                                       momentum = false
- clients are judged on examples that they train on                      sbc_data = "train20"
- batch-norm statistics are aggregated like parameters                   bn_buffers = "as_parameters", our default, too
- a short last batch is dropped, and with it whole small clients         training.tiny_clients = "ref_drop_last"

The last is no option of a strategy, but of an experiment. Not reproduced: angles that are no numbers and then make
every client "unbiased" (they are 0 here); the first server step's model going by the number of the initial one, so that
nobody is typed before the second; augmented examples in the judgement; their Adult data; sleeping clients in the
wall-clock time; runs without seeds. Nor can a strategy hold out no examples (set ``data.validation_fraction = 0``), or
say who is how fast: their setting is ``devices.startup = 1`` at ticks of one second, K = 10, 100 clients,
``training.clip = 20``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.aggregators.reference_options import (
    BatchNormBuffers,
    CarryMeta,
    Updates,
    buffers_apart,
    carried_meta,
    waiting_updates,
)
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.fedqs import (
    AdaptMomentum,
    ClassData,
    FedQSPolicy,
    GlobalStep,
    MeanFrequency,
    MomentumCap,
    MomentumGain,
    MomentumMin,
    RateChange,
    RateMax,
    RateMin,
    Similarity,
    SmallClass,
    Spread,
)
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.schedulers.options import (
    BufferRule,
    BufferSize,
    Clock,
    Concurrency,
    FlushSeconds,
    MaxBuffer,
    Tick,
    TickOrder,
)
from strategies.weightings.fedqs_options import (
    Feedback,
    FeedbackSimilarity,
    FeedbackSpeed,
    FrequencyCap,
    Phi,
    SimilarityCap,
    fedqs_weights,
)
from strategies.weightings.options import WeightBase, base_weighting


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
    carry_meta: CarryMeta = "with_update",
    sbc_data: ClassData = "holdout",
    bn_buffers: BatchNormBuffers = "as_parameters",
    updates: Updates = "snapshot",
    concurrency: Concurrency = None,
    buffer: BufferRule = "drain",
    clock: Clock = "event",
    tick: Tick = 1.0,
    tick_order: TickOrder = "sent",
    max_buffer: MaxBuffer = None,
    flush_seconds: FlushSeconds = None,
) -> FlowerStrategy:
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
    policy = FedQSPolicy(
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
        sbc_data=sbc_data,
    )
    plain = GradientAggregator(weighting) if aggregation == "gradient" else ModelAggregator(weighting)
    aggregator = waiting_updates(carried_meta(buffers_apart(plain, bn_buffers), carry_meta), updates)
    return FlowerStrategy(
        Buffered(
            buffer_size=buffer_size,
            concurrency=concurrency,
            buffer=buffer,
            clock=clock,
            tick=tick,
            max_buffer=max_buffer,
            flush_seconds=flush_seconds,
            tick_order=tick_order,
        ),
        aggregator,
        policy,
        task_weights,
        name="fedqs",
    )
