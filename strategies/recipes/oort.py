"""Oort: rounds of clients that are useful to the model and not too slow.

"Oort: Efficient Federated Learning via Guided Participant Selection" (OSDI 2021, arXiv 2010.06081). Selection, its
formulas and its differences from the authors' code: :mod:`strategies.selectors.oort`. More clients are asked than a
round needs, and the slowest are not waited for; clients report the losses of their first epoch (8 bytes). Aggregation
is FedAvg's, ``w[t+1] = sum_i (n_i / n) w_i`` with vectors of shape [P].
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from strategies.aggregators import ModelAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import LossReports
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.schedulers.options import Late, StepBudget, Timeout
from strategies.selectors import OortSelector
from strategies.selectors.oort import (
    BlacklistRounds,
    Clip,
    CutOff,
    Decay,
    Exploration,
    ExplorationMin,
    PacerRounds,
    PacerStep,
    Penalty,
    RoundThreshold,
)
from strategies.weightings.options import WeightBase, base_weighting


@method("synchronous", "Oort: Efficient Federated Learning via Guided Participant Selection", arxiv="2010.06081")
def oort(
    task_weights: TaskWeights | None = None,
    *,
    clients_per_round: Annotated[int, Param("clients whose answers make a round", ge=1)] = 10,
    exploration: Exploration = 0.9,
    decay: Decay = 0.95,
    exploration_min: ExplorationMin = 0.2,
    round_threshold: RoundThreshold = 30.0,
    pacer_rounds: PacerRounds = 20,
    pacer_step: PacerStep = 5.0,
    penalty: Penalty = 2.0,
    cut_off: CutOff = 0.7,
    clip: Clip = 98.0,
    blacklist_rounds: BlacklistRounds = None,
    over_commit: Annotated[
        float,
        Param("clients asked for each answer that a round needs; the slowest are late", ge=1, source="authors' code"),
    ] = 1.1,
    timeout: Timeout = None,
    late: Late = "reject",
    step_budget: StepBudget = None,
    weight_base: WeightBase = "data_size",
) -> FlowerStrategy:
    """Oort: rounds of selected clients, over-committed."""
    selector = OortSelector(
        exploration=exploration,
        decay=decay,
        exploration_min=exploration_min,
        round_threshold=round_threshold,
        pacer_rounds=pacer_rounds,
        pacer_step=pacer_step,
        penalty=penalty,
        cut_off=cut_off,
        clip=clip,
        blacklist_rounds=blacklist_rounds,
    )
    scheduler = Synchronous(
        selector,
        clients_per_round=clients_per_round,
        over_commit=over_commit,
        timeout=timeout,
        late=late,
        step_budget=step_budget,
    )
    aggregator = ModelAggregator(base_weighting(weight_base))
    return FlowerStrategy(scheduler, aggregator, LossReports(), task_weights, name="oort")
