"""DIMAT: clients merge with their neighbours after matching units, then train.

"DIMAT: Decentralized Iterative Merging-And-Training for Deep Learning Models" (CVPR 2024, arXiv 2404.08079). There is
no server. In a round every client i, with its model x_i of shape [P] and a row W_i of mixing weights that sums to 1,

    puts the units of each neighbour's model x_l in the order of its own, by their activations
    x_i <- W_ii x_i + sum_l W_il (x_l aligned)
    trains from there                                                :mod:`clients.policies.merging`

A round lasts until its slowest client is done; a client receives a model from each neighbour and sends its own to
each. What a run calls the global model is the mean of the clients' models, unit by unit; where these drift far apart,
the groups "nodes" and "worst node" of the evaluations say more.

Clients that start from one model have no reason to change their units' places, and matching can gain nothing; it is
for models that came apart (the authors': trained apart for 100 epochs). With ``start = "own"`` each client keeps its
own order of units, so that the mean of the models means nothing: only the groups "nodes" and "worst node" do.

Differences from the authors' code: a client's activations are those of its own examples (theirs: of a shared loader of
the whole data set), and as these are few, no unit moves for a gain within the error of a correlation. Local training
is the run's descent (theirs: Adam, 2 epochs). ``match = "weights"`` compares with the client's own model (their WM:
with what was merged so far). Statistics of batch norm are measured anew around a merge on the client's own examples
(theirs: on the shared loader, ``bn_data = "shared"``, which no real client could). Units are matched in chains of
layers; networks with branches are refused before a run, and ``match = "none"`` averages any model as it is (their WA).
A model without hidden layers has nothing to match, and is averaged.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators.gossip import Gossip
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.merging import Merging
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous

PARTS = OptionsOf(Merging, Gossip, without=("steps", "mix_order"))
"""What this is composed of, whose options are its own, too."""


@method(
    "decentralised",
    "DIMAT: Decentralized Iterative Merging-And-Training for Deep Learning Models",
    arxiv="2404.08079",
)
def dimat(
    task_weights: TaskWeights | None = None,
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """DIMAT: clients merge with neighbours unit by matching unit, then train."""
    of_merging, of_gossip = PARTS.divide(options)
    gossip = Gossip(steps=0, **of_gossip)
    return FlowerStrategy(Synchronous(), gossip, Merging(gossip, **of_merging), task_weights, name="dimat")
