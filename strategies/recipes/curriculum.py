"""Curricula: easy examples and easy clients first.

"When Do Curricula Work in Federated Learning?" (ICCV 2023, arXiv 2212.12712). Synchronous rounds of FedAvg, in which

    each client trains on the easiest share of its examples,    :mod:`clients.policies.curriculum`
    by their loss under the model that it was sent;
    the clients are drawn from the easiest share of all,        :mod:`strategies.selectors.paced`
    by the loss that each last reported;
    share = start + (1 - start) version / versions, at most 1   :mod:`strategies.policies.curriculum`

The paper's score, pacing and numbers were not available and there is no authors' code: score, linear pacing and the
defaults (from 0.3 to 1 over the first half of the main job's 400 versions, at least one batch) are our choice. Local
steps are as many as without a curriculum, on fewer examples. Scoring counts as work on a device's clock. With
``start = 1`` and ``client_order = "none"`` this is FedAvg.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from fedmtl.errors import ConfigError
from strategies.aggregators import ModelAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.curriculum import Curriculum, ExampleOrder, Opened
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.schedulers.options import ClientsDrawn
from strategies.selectors.paced import PacedSelector
from strategies.weightings.options import WeightBase, base_weighting


@method("synchronous", "When Do Curricula Work in Federated Learning?", arxiv="2212.12712")
def curriculum(
    task_weights: TaskWeights | None = None,
    *,
    start: Annotated[float, Param("share of examples and clients at the start", gt=0, le=1)] = 0.3,
    versions: Opened = 200,
    order: ExampleOrder = "easy_first",
    client_order: Annotated[
        Literal["easy_first", "hard_first", "none"], Param("which clients come first", source="paper")
    ] = "easy_first",
    clients_per_round: ClientsDrawn = 10,
    weight_base: WeightBase = "data_size",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """Curricula: rounds on easy examples and easy clients first, and on all of them later."""
    selection = None
    if client_order != "none":
        if clients_per_round is None:
            raise ConfigError(
                f"client_order = {client_order!r} chooses among clients: set clients_per_round, or use 'none'"
            )
        selection = PacedSelector(client_order=client_order, start=start, versions=versions)
    return FlowerStrategy(
        Synchronous(selection, clients_per_round=clients_per_round, **rounds),
        ModelAggregator(base_weighting(weight_base)),
        Curriculum(start=start, versions=versions, order=order),
        task_weights,
        name="curriculum",
    )
