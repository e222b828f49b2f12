"""FAL: federated adversarial learning.

"Federated Adversarial Learning: A Framework with Convergence Analysis" (arXiv 2208.03635):

    min_W sum_c E max_{||x' - x|| <= rho} loss(f_W(x'), y).

In a round each client takes its local steps on adversarial examples (:mod:`clients.policies.adversarial`), and
``W += eta_global mean_c(Delta_c)``, vectors of shape [P]. The metrics of a run are those on the true examples.

The paper is a theory and names no attack: projected gradient ascent of 7 steps of rho/4 in the maximum norm, clamped
to the range of the client's features, is our choice. There is no authors' code. A local step costs as many gradients
as the attack has steps, and one, and counts so on a device's clock. With rho = 0 this is FedAvg.
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from strategies.aggregators import GradientAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.adversarial import Adversarial, AttackSteps, BallNorm, Radius, StepSize
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.schedulers.options import ClientsDrawn
from strategies.weightings.options import WeightBase, base_weighting


@method("synchronous", "Federated Adversarial Learning: A Framework with Convergence Analysis", arxiv="2208.03635")
def fal(
    task_weights: TaskWeights | None = None,
    *,
    rho: Radius = 0.1,
    attack_steps: AttackSteps = 7,
    step_size: StepSize = 0.25,
    norm: BallNorm = "inf",
    server_rate: Annotated[float, Param("eta_global, the server's step", gt=0)] = 1.0,
    clients_per_round: ClientsDrawn = None,
    weight_base: WeightBase = "uniform",
) -> FlowerStrategy:
    """FAL: rounds of training on adversarial examples."""
    return FlowerStrategy(
        Synchronous(clients_per_round=clients_per_round),
        GradientAggregator(base_weighting(weight_base), server_rate),
        Adversarial(rho=rho, attack_steps=attack_steps, step_size=step_size, norm=norm),
        task_weights,
        name="fal",
    )
