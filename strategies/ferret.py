"""Ferret: federated averaging of updates that go up as a few coordinates along shared random vectors.

"Ferret: Federated Full-Parameter Tuning at Scale for Large Language Models" (ICML 2025, arXiv 2409.06277). In a round
every client takes its local steps and sends, for each group g of tensors, K_g coordinates c_s of its update along
random vectors v_s that all draw alike (:mod:`fedmtl.compression.shared_randomness`); the server takes the step

    w[t+1] = w[t] + eta_s sum_i p_i sum_s c_{i,s} v_s,    vectors of shape [P].

An upload has 4 bytes for each of the sum_g K_g coordinates, and for each group one number more. The same compressor
goes with any other strategy: ``compression.name = "shared-randomness"``.

Differences from the authors' code: the restored update is right on average (theirs, ``scale = "dimension"``, is about
a third of it, and is followed by a server rate of 10 that decays to 0 over a fixed number of rounds, and a momentum of
the seeds' values); the server's rate is constant, there is no clipping of single coordinates, K is their script's
(their default of 4096 is for models of 10^9 parameters). Models still go down whole: a client that missed rounds could
not rebuild them from the last one's coordinates.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.compression import SharedRandomness
from strategies.aggregators import GradientAggregator
from strategies.methods import method
from strategies.options import WeightBase, base_weighting
from strategies.parts import TaskWeights
from strategies.schedulers import Synchronous
from strategies.strategy import Strategy


@method(
    "synchronous",
    "Ferret: Federated Full-Parameter Tuning at Scale for Large Language Models",
    arxiv="2409.06277",
)
def ferret(
    task_weights: TaskWeights | None = None,
    *,
    coordinates: Annotated[
        int, Param("K, most coordinates of a group of tensors", ge=2, source="authors' code (script)")
    ] = 200,
    server_rate: Annotated[float, Param("eta_s, the server's step", gt=0)] = 1.0,
    scale: Annotated[
        Literal["unbiased", "least-error", "dimension"],
        Param("restored update: right on average, nearest on average, or the authors' 1/d_g"),
    ] = "unbiased",
    clients_per_round: Annotated[int | None, Param("clients drawn for a round; all if not set", ge=1)] = None,
    weight_base: WeightBase = "uniform",
) -> Strategy:
    """Ferret: FedAvg with updates compressed by shared randomness."""
    strategy = Strategy(
        Synchronous(clients_per_round),
        GradientAggregator(base_weighting(weight_base), server_rate),
        task_weights=task_weights,
        name="ferret",
    )
    strategy.compress(SharedRandomness(coordinates=coordinates, scale=scale))
    return strategy
