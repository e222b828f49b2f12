"""Ferret: federated averaging of updates that go up as a few coordinates along shared random vectors.

"Ferret: Federated Full-Parameter Tuning at Scale for Large Language Models" (ICML 2025, arXiv 2409.06277). In a round
every client takes its local steps and sends, for each group g of tensors, K_g coordinates c_s of its update along
random vectors v_s that all draw alike (:mod:`fedmtl.compression.shared_randomness`); the server takes the step

    D = sum_i p_i sum_s c_{i,s} v_s,    m <- beta m + D,    w[t+1] = w[t] + eta_t m,    vectors of shape [P].

eta_t is constant, or ``eta_s (1 - t/R)``, which ends the learning after R rounds. A momentum of the coordinates, which
is what the authors keep, is the momentum of the vectors, for these are linear in them; it may outlive their seeds.

An upload has 4 bytes for each of the sum_g K_g coordinates, and for each group one number more. The same compressor
goes with any other strategy: ``compression.name = "shared-randomness"``.

Differences from the authors' code: the restored update is right on average (theirs, ``scale = "dimension"``, is about
a third of it, for which they have a rate of 10 that falls to 0 over the run's 40 rounds, and a momentum of 0.9: here
the rate is 1 and constant, and there is no momentum, unless set). Terms are clipped before they are averaged, to the
same length. K is their script's (their default of 4096 is for models of 10^9 parameters). Models still go down whole: a
client that missed rounds could not rebuild them from the last one's coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from fedmtl.compression import SharedRandomness
from fedmtl.protocol import Update
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Aggregator, TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings.options import WeightBase, base_weighting


class LinearDecay:
    """``eta_s (1 - t/R)`` at version t, and 0 from version R on.

    Parameters
    ----------
    eta
        eta_s.
    rounds
        R.

    Examples
    --------
    At the start, half way and at the end of 100 rounds:

    >>> from strategies.recipes.ferret import LinearDecay
    >>> rate = LinearDecay(eta=10.0, rounds=100)
    >>> [rate([], version) for version in (0, 50, 100)]
    [10.0, 5.0, 0.0]
    """

    def __init__(self, eta: float, rounds: int) -> None:
        self.eta = eta
        self.rounds = rounds

    def __call__(self, updates: Sequence[Update], version: int) -> float:
        """The rate of the step from this version."""
        return self.eta * max(0.0, 1.0 - version / self.rounds)


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
    decay_rounds: Annotated[
        int | None, Param("R, rounds in which the server's step falls linearly to 0; constant if not set", ge=1)
    ] = None,
    momentum: Annotated[float, Param("beta, momentum of the coordinates (authors: 0.9)", ge=0, lt=1)] = 0.0,
    clip: Annotated[float, Param("most length of a term c_s v_s; 0: any", ge=0, source="authors' code")] = 10.0,
    scale: Annotated[
        Literal["unbiased", "least-error", "dimension"],
        Param("restored update: right on average, nearest on average, or the authors' 1/d_g"),
    ] = "unbiased",
    weight_base: WeightBase = "uniform",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """Ferret: FedAvg with updates compressed by shared randomness."""
    aggregator: Aggregator = GradientAggregator(base_weighting(weight_base), server_rate=server_rate)
    if momentum > 0 or decay_rounds is not None:
        schedule = None if decay_rounds is None else LinearDecay(server_rate, decay_rounds)
        aggregator = Optimized(GradientAggregator(base_weighting(weight_base)), SGD(server_rate, momentum), schedule)
    strategy = FlowerStrategy(Synchronous(**rounds), aggregator, task_weights=task_weights, name="ferret")
    strategy.compress(SharedRandomness(coordinates=coordinates, scale=scale, clip=clip))
    return strategy
