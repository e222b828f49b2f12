"""Oort: rounds of clients that are useful to the model and not too slow.

"Oort: Efficient Federated Learning via Guided Participant Selection" (OSDI 2021, arXiv 2010.06081). Selection, its
formulas and its differences from the authors' code: :mod:`strategies.selectors.oort`. More clients are asked than a
round needs, and the slowest are not waited for; clients report the losses of their first epoch (8 bytes). Aggregation
is FedAvg's, ``w[t+1] = sum_i (n_i / n) w_i`` with vectors of shape [P].
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import ModelAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import LossReports
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.schedulers.options import OVER_COMMIT
from strategies.selectors import OortSelector
from strategies.weightings.options import WeightBase, base_weighting

PARTS = OptionsOf(OortSelector, Synchronous)
"""What this is composed of, whose options are its own, too."""


@method("synchronous", "Oort: Efficient Federated Learning via Guided Participant Selection", arxiv="2010.06081")
def oort(
    task_weights: TaskWeights | None = None,
    *,
    clients_per_round: Annotated[int, Param("clients whose answers make a round", ge=1)] = 10,
    over_commit: Annotated[
        float,
        OVER_COMMIT.by("authors' code"),
    ] = 1.1,
    weight_base: WeightBase = "data_size",
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """Oort: rounds of selected clients, over-committed."""
    of_selector, of_rounds = PARTS.divide(options)
    selector = OortSelector(**of_selector)
    return FlowerStrategy(
        Synchronous(selector, clients_per_round=clients_per_round, over_commit=over_commit, **of_rounds),
        ModelAggregator(base_weighting(weight_base)),
        LossReports(),
        task_weights,
        name="oort",
    )
