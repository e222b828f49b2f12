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
- batch-norm statistics are aggregated like parameters                   bn_buffers = "as_parameters", within the
                                                                         range of the clients' statistics
- a short last batch is dropped, and with it whole small clients         training.tiny_clients = "ref_drop_last"

The last is no option of a strategy, but of an experiment. Not reproduced: angles that are no numbers and then make
every client "unbiased" (they are 0 here); the first server step's model going by the number of the initial one, so that
nobody is typed before the second; augmented examples in the judgement; their Adult data; sleeping clients in the
wall-clock time; runs without seeds. Nor can a strategy hold out no examples (set ``data.validation_fraction = 0``), or
say who is how fast: their setting is ``devices.startup = 1`` at ticks of one second, K = 10, 100 clients,
``training.clip = 20``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.aggregators.batch_norm import BatchNormBuffers, batch_norm_apart
from strategies.aggregators.reference_faults import CarryMeta, Updates, with_faults
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.fedqs import FedQSPolicy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.weightings import FedQSWeights
from strategies.weightings.options import WeightBase, base_weighting

PARTS = OptionsOf(Buffered, FedQSWeights, FedQSPolicy)
"""What this is composed of, whose options are its own, too."""


@method(
    "semi-asynchronous",
    "FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning",
    arxiv="2510.07664",
)
def fedqs(
    task_weights: TaskWeights | None = None,
    *,
    aggregation: Annotated[Literal["gradient", "model"], Param("FedQS-SGD or FedQS-Avg", source="paper")] = "gradient",
    weight_base: WeightBase = "uniform",
    carry_meta: CarryMeta = "with_update",
    bn_buffers: BatchNormBuffers = None,
    updates: Updates = "snapshot",
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """FedQS: semi-asynchronous, clients typed by speed and similarity."""
    of_buffer, of_weights, of_policy = PARTS.divide(options)
    weighting = FedQSWeights(base_weighting(weight_base), **of_weights)
    plain = GradientAggregator(weighting) if aggregation == "gradient" else ModelAggregator(weighting)
    aggregator = with_faults(batch_norm_apart(plain, bn_buffers), updates=updates, carry_meta=carry_meta)
    return FlowerStrategy(Buffered(**of_buffer), aggregator, FedQSPolicy(**of_policy), task_weights, name="fedqs")
