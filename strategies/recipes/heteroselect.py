"""HeteRo-Select: rounds of clients drawn by usefulness, diversity, fairness and time since they last took part.

arXiv 2508.06692. Selection, its formulas and its differences from the authors' code:
:mod:`strategies.selectors.hetero_select`. As there, clients are held near the global model (mu) and the server's step
has momentum (beta); clients report the mean loss of their first 8 batches (8 bytes). With vectors of shape [P]:

    D = sum_i p_i Delta_i,     v <- beta v + D,     w[t+1] = w[t] + v

with ``p_i = n_i / n``, or by the scores S_i, scaled to 0..1, ``p_i = S_i / sum S``; these may also set a client's
learning rate, ``min(eta (1 + S_i), cap)``, for which `eta` is 0.05 and the cap 0.15 in the authors' code, and the share
of an update's entries that goes up (:mod:`strategies.selectors.score_compression`). An entry takes 8 bytes there, its
position included (the authors count 4).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from fedmtl.compression import TopEntries
from strategies.aggregators import ModelAggregator, Optimized
from strategies.aggregators.server_optimizers import SERVER_MOMENTUM, SGD
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.proximal import PROXIMAL
from strategies.policies.scored_reports import ScoredReports
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.selectors import HeteroSelect
from strategies.selectors.score_compression import ScoreCompression
from strategies.weightings.options import base_weighting
from strategies.weightings.score import ScoreWeights

_CODE = "authors' code"


PARTS = OptionsOf(HeteroSelect, Synchronous)
"""What this is composed of, whose options are its own, too."""


@method("synchronous", "HeteRo-Select", arxiv="2508.06692")
def heteroselect(
    task_weights: TaskWeights | None = None,
    *,
    clients_per_round: Annotated[int, Param("clients whose answers make a round", ge=1, source=_CODE)] = 10,
    batches: Annotated[int, Param("batches whose mean loss a client reports; 0: an epoch", ge=0, source=_CODE)] = 8,
    mu: Annotated[float, PROXIMAL.by(_CODE)] = 0.1,
    beta: Annotated[float, SERVER_MOMENTUM.by(_CODE)] = 0.5,
    score_rate: Annotated[bool, Param("learning rates that grow with the score", source=_CODE)] = False,
    rate_cap: Annotated[float, Param("largest learning rate that a score makes", gt=0, source=_CODE)] = 0.15,
    score_compression: Annotated[
        bool, Param("updates keep their largest entries, more of them where the score is high", source=_CODE)
    ] = False,
    kept: Annotated[float, Param("theta, share of an update's entries that is kept", gt=0, le=1, source=_CODE)] = 0.2,
    kept_rounds: Annotated[int, Param("rounds over which this share falls", ge=2, source=_CODE)] = 100,
    weight_base: Annotated[
        Literal["uniform", "data_size", "score"], Param("updates count the same, by examples, or by their score")
    ] = "data_size",
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """HeteRo-Select: rounds of clients drawn by a score."""
    of_selector, of_rounds = PARTS.divide(options)
    selector = HeteroSelect(**of_selector)
    weighting = ScoreWeights(selector) if weight_base == "score" else base_weighting(weight_base)
    shares = ScoreCompression(selector, kept, kept_rounds) if score_compression else None
    strategy = FlowerStrategy(
        Synchronous(selector, clients_per_round=clients_per_round, **of_rounds),
        Optimized(ModelAggregator(weighting), SGD(momentum=beta)),
        ScoredReports(selector, shares, batches=batches, mu=mu, rate_cap=rate_cap if score_rate else None),
        task_weights,
        name="heteroselect",
    )
    if score_compression:
        strategy.compress(TopEntries(share=kept))
    return strategy
