"""DIMAT: clients merge with their neighbours after matching units, then train.

"DIMAT: Decentralized Iterative Merging-And-Training for Deep Learning Models" (CVPR 2024, arXiv 2404.08079). There is
no server. In a round every client i, with its model x_i of shape [P] and a row W_i of mixing weights that sums to 1,

    aligns each neighbour's model x_l to its own by activations      :mod:`clients.techniques.merging`
    x_i <- W_ii x_i + sum_l W_il (x_l aligned)
    trains from there                                                its local steps

A round lasts until its slowest client is done; a client receives a model from each neighbour and sends its own to
each. What a run calls the global model is the mean of the clients' models, unit by unit; where these drift far apart,
the groups "nodes" and "worst node" of the evaluations say more.

All clients start from one model here, where units have no reason to change places: on the digits, matching then costs
accuracy instead of gaining it, the more so the less alike the clients' data are. It is for models that came apart.

Differences from the authors' code: a client's activations are those of its own examples (theirs: of a shared loader),
and local training is the run's descent (theirs: Adam, 2 epochs). Networks with batch norm or branches, for which the
authors reset statistics around a merge, are refused; ``match = false`` averages any model as it is (their WA). Weight
matching (their WM) is not offered.
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from strategies.aggregators.gossip import Gossip
from strategies.methods import method
from strategies.options import Degree, TopologyOption
from strategies.parts import TaskWeights
from strategies.policies.neighbours import NeighbourModels
from strategies.schedulers import Synchronous
from strategies.strategy import Strategy
from strategies.topologies import Topology


@method(
    "decentralised",
    "DIMAT: Decentralized Iterative Merging-And-Training for Deep Learning Models",
    arxiv="2404.08079",
)
def dimat(
    task_weights: TaskWeights | None = None,
    *,
    examples: Annotated[int, Param("a client's examples that activations are taken from, at most", ge=2)] = 256,
    match: Annotated[bool, Param("match units before averaging", source="paper")] = True,
    topology: TopologyOption = "ring",
    degree: Degree = 4,
) -> Strategy:
    """DIMAT: clients merge with neighbours unit by matching unit, then train."""
    gossip = Gossip(Topology(topology, degree), steps=0)
    return Strategy(Synchronous(), gossip, NeighbourModels(gossip, match, examples), task_weights, name="dimat")
