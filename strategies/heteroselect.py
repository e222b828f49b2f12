"""HeteRo-Select: rounds of clients drawn by usefulness, diversity, fairness and time since they last took part.

arXiv 2508.06692. Selection, its formulas and its differences from the authors' code:
:mod:`strategies.selectors.hetero_select`. As there, clients are held near the global model (mu) and the server's step
has momentum (beta); clients report the mean loss of their first 8 batches (8 bytes). With vectors of shape [P]:

    D = sum_i (n_i / n) Delta_i,     v <- beta v + D,     w[t+1] = w[t] + v
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from strategies.aggregators import ModelAggregator, Optimized
from strategies.methods import method
from strategies.options import WeightBase, base_weighting
from strategies.parts import TaskWeights
from strategies.policies import LossReports
from strategies.round_options import Late, OverCommit, StepBudget, Timeout
from strategies.schedulers import Synchronous
from strategies.selectors import HeteroSelect
from strategies.server_optimizers import SGD
from strategies.strategy import Strategy

_CODE = "authors' code"


@method("synchronous", "HeteRo-Select", arxiv="2508.06692")
def heteroselect(
    task_weights: TaskWeights | None = None,
    *,
    clients_per_round: Annotated[int, Param("clients whose answers make a round", ge=1, source=_CODE)] = 10,
    diversity: Annotated[float, Param("factor of the diversity in a score", ge=0, source=_CODE)] = 0.3,
    fairness: Annotated[float, Param("factor of the fairness in a score", ge=0, source=_CODE)] = 0.2,
    staleness: Annotated[float, Param("factor of the time since the last choice", ge=0, source=_CODE)] = 0.2,
    temperature: Annotated[float, Param("temperature of the softmax", gt=0, source=_CODE)] = 1.0,
    batches: Annotated[int, Param("batches whose mean loss a client reports; 0: an epoch", ge=0, source=_CODE)] = 8,
    mu: Annotated[float, Param("factor of the proximal term", ge=0, source=_CODE)] = 0.1,
    beta: Annotated[float, Param("momentum of the server's step", ge=0, lt=1, source=_CODE)] = 0.5,
    over_commit: OverCommit = 1.0,
    timeout: Timeout = None,
    late: Late = "reject",
    step_budget: StepBudget = None,
    weight_base: WeightBase = "data_size",
) -> Strategy:
    """HeteRo-Select: rounds of clients drawn by a score."""
    selector = HeteroSelect(diversity=diversity, fairness=fairness, staleness=staleness, temperature=temperature)
    scheduler = Synchronous(
        clients_per_round,
        selector=selector,
        over_commit=over_commit,
        timeout=timeout,
        late=late,
        step_budget=step_budget,
    )
    aggregator = Optimized(ModelAggregator(base_weighting(weight_base)), SGD(momentum=beta))
    return Strategy(scheduler, aggregator, LossReports(batches, mu), task_weights, name="heteroselect")
