"""FedAT: tiers by speed, synchronous inside and asynchronous across.

"FedAT: A High-Performance and Communication-Efficient Federated Learning System with Asynchronous Tiers" (SC 2021,
arXiv 2010.05958). Clients are cut into M tiers by latency. Whenever a tier has finished a round of FedAvg, with
models of shape [P] and T_m rounds of tier m (1 the fastest) so far,

    w_m = sum_{i in the round} p_i w_i,     w = sum_m (T_{M+1-m} / T) w_m,     T = sum_m T_m

so that slow tiers have the fast ones' counts for weights; locally each client minimises its loss plus
``lambda/2 ||w - w_start||^2``. :class:`strategies.schedulers.tiered.Tiered` forms the tiers in a first round of
everybody, :class:`strategies.aggregators.tier_models.TierModels` averages.

Differences: the model's compression for transfer is left out. FedQS's version makes tiers of client numbers, warms up
for 31 rounds, and counts uploads, not rounds; its decay of the convolutions' weights in place of the proximal term is
``local = "l2_conv"``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.aggregators import TierModels
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import Proximal
from strategies.policies.convolution_decay import ConvolutionDecay
from strategies.recipes.papers import method
from strategies.schedulers import Tiered
from strategies.schedulers.options import ClientsOfTier
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "semi-asynchronous",
    "FedAT: A High-Performance and Communication-Efficient Federated Learning System with Asynchronous Tiers",
    arxiv="2010.05958",
)
def fedat(
    task_weights: TaskWeights | None = None,
    *,
    tiers: Annotated[int, Param("M, number of tiers", ge=1, source="authors' code of FedQS")] = 5,
    clients_per_round: ClientsOfTier = None,
    local: Annotated[
        Literal["prox", "l2_conv"], Param("what holds clients back: a proximal term, or a decay of convolutions")
    ] = "prox",
    proximal: Annotated[float, Param("lambda, factor of the proximal term of local = 'prox'", ge=0)] = 0.01,
    l2: Annotated[
        float, Param("factor of the decay of local = 'l2_conv'", ge=0, source="authors' code of FedQS")
    ] = 0.1,
    weight_base: WeightBase = "data_size",
) -> FlowerStrategy:
    """FedAT: tiers of equally fast clients have rounds of their own; slow tiers weigh as much as fast ones count."""
    scheduler = Tiered(tiers=tiers, clients_per_round=clients_per_round)
    aggregator = TierModels(base_weighting(weight_base), scheduler.tier_of, lambda: scheduler.tiers)
    policy = Proximal(mu=proximal) if local == "prox" else ConvolutionDecay(decay=l2)
    return FlowerStrategy(scheduler, aggregator, policy, task_weights, name="fedat")
