"""DFedSAM and DFedSAM-MGS: sharpness-aware steps and gossip, without a server.

"Improving the Model Consistency of Decentralized Federated Learning" (ICML 2023, arXiv 2302.04083). In a round every
client i of the N takes its local steps from its own model x_i, vectors of shape [P], both gradients on one batch:

    g = grad f_i(y), y <- y - eta grad f_i(y + rho g / ||g||)     :mod:`clients.policies.sharpness_aware`

and then, with z_i where the steps ended, Q gossip steps with the neighbours in a graph:

    x_i <- sum_l W_il z_l,   Q times                              :mod:`strategies.aggregators.gossip`

W is doubly stochastic (:mod:`strategies.aggregators.topologies`). DFedSAM has Q = 1 and DFedSAM-MGS a larger Q, with
which the second eigenvalue lambda of W, in the paper's rate, becomes lambda^Q. A round lasts until its slowest client
is done; a client sends and receives its degree times Q models.

No official code was available; the ports that are mix before training and weigh by examples: ``mix_order = "before"``
gives their order, their weights would not leave the mean of the models as it is. With the full graph and rho = 0 this
is FedAvg with equal weights.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.aggregators.gossip import Gossip
from strategies.aggregators.topologies import Degree, Topology, TopologyOption
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.sharpness_aware import SharpnessAware
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous


@method("decentralised", "Improving the Model Consistency of Decentralized Federated Learning", arxiv="2302.04083")
def dfedsam(
    task_weights: TaskWeights | None = None,
    *,
    rho: Annotated[float, Param("norm of the climb; 0 for plain steps", ge=0, source="second-hand")] = 0.01,
    gossip_steps: Annotated[int, Param("Q, gossip steps of a round; above 1: DFedSAM-MGS", ge=1, source="paper")] = 1,
    topology: TopologyOption = "ring",
    degree: Degree = 4,
    mix_order: Annotated[
        Literal["after", "before"], Param("whether a round mixes after it has trained, or before", source="paper")
    ] = "after",
) -> FlowerStrategy:
    """DFedSAM: clients take sharpness-aware steps and mix their models with neighbours."""
    return FlowerStrategy(
        Synchronous(),
        Gossip(Topology(topology, degree), gossip_steps, mix_order),
        SharpnessAware(rho=rho),
        task_weights,
        name="dfedsam",
    )
