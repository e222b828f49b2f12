"""FAL: federated adversarial learning.

"Federated Adversarial Learning: A Framework with Convergence Analysis" (arXiv 2208.03635):

    min_W sum_c E max_{||x' - x|| <= rho} loss(f_W(x'), y).

In a round each client takes its local steps on adversarial examples (:mod:`clients.policies.adversarial`), and
``W += eta_global mean_c(Delta_c)``, vectors of shape [P]. The metrics of a run are those on the true examples.

The paper is a theory and names no attack: projected gradient ascent of 7 steps of rho/4 in the maximum norm, clamped
to the range of the client's features, is our choice. There is no authors' code. A local step goes forward, and
back to the inputs, in each step of the attack, and counts so on a device's clock. With rho = 0 this is FedAvg.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import GradientAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.adversarial import Adversarial
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings.options import WeightBase, base_weighting

PARTS = OptionsOf(Adversarial, Synchronous)
"""What this is composed of, whose options are its own, too."""


@method("synchronous", "Federated Adversarial Learning: A Framework with Convergence Analysis", arxiv="2208.03635")
def fal(
    task_weights: TaskWeights | None = None,
    *,
    server_rate: Annotated[float, Param("eta_global, the server's step", gt=0)] = 1.0,
    weight_base: WeightBase = "uniform",
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """FAL: rounds of training on adversarial examples."""
    attack, rounds = PARTS.divide(options)
    return FlowerStrategy(
        Synchronous(**rounds),
        GradientAggregator(base_weighting(weight_base), server_rate=server_rate),
        Adversarial(**attack),
        task_weights,
        name="fal",
    )
