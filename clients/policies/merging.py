"""The client's half of DIMAT: it merges its neighbours' models with its own, unit by matching unit, then trains.

"DIMAT: Decentralized Iterative Merging-And-Training for Deep Learning Models" (CVPR 2024, arXiv 2404.08079). Before a
client trains, it puts the units of each neighbour's model in the order of its own (:mod:`clients.policies.matching`):
by their activations A (its own) and B (the neighbour's) on its own examples, shape [samples, units], standardised, in
every hidden layer k, or by the weights themselves (the authors' WM),

    C = A^T B / samples                           correlations, shape [units, units]
    p_k = argmax_p sum_i C[i, p(i)]               the unit of the neighbour that does what unit i does
    W_k <- W_k[p_k][:, p_{k-1}], b_k <- b_k[p_k]  the neighbour's model with its units in that order
    x_i <- x_i + sum_l W_il (x_l aligned - x_i)   with the weights of a gossip step

A unit that never changes correlates with nothing, and stays in its place where that costs nothing. A batch norm goes
with its units. Its statistics depend on the other weights, so that no mean of them fits the merged model: they are
measured anew, before a comparison and after the merge, on examples of the client's own, or (the authors' loader) on
the same ones of all clients' for everybody. The proximal term, if the run has one, still pulls towards the client's
model of before.

Down: each neighbour's model as the vector ``neighbour/l`` and its weight as the term ``weight/l``; the constants
``match``, ``examples`` and ``bn_data``. Up: nothing beside the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe
from clients.policies.matching import activations, matched_by_activations, matched_by_weights, reordered
from clients.policies.step_rule import StepRule, Workbench
from fedmtl.balancing.passes import Passes, batches_of
from fedmtl.models.chain import HiddenLayer, hidden_layers
from fedmtl.models.norms import measure_statistics, norms_in
from fedmtl.protocol import TrainOrder

Match = Literal["activations", "weights", "none"]
NormData = Literal["private", "shared"]


class MergingHalf(ClientHalf):
    """Merges the neighbours' models before it trains."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, from the merged model."""
        neighbours = [
            (order.terms[f"weight/{name.partition('/')[2]}"], vector)
            for name, vector in order.vectors.items()
            if name.startswith("neighbour/")
        ]
        constants = order.constants
        merging = Merging(neighbours, constants["match"], constants["examples"], constants["bn_data"])
        return Plan(order.settings, step_rule=merging)

    def passes(self, order: TrainOrder, steps: int, examples: int, tasks: int) -> Passes:
        """Forward passes: of each model to match them, and of the merged one for its batch norms.

        To correlate the activations of two models takes for a layer of n units with m inputs n/m of what the layer
        takes forward. That is counted as half a pass for each neighbour: 1 where a network is as wide everywhere, and
        less where it narrows or has convolutions. Matching by weights is no pass, and not counted.
        """
        neighbours = len(order.vectors)
        forward = 1 + 1.5 * neighbours if order.constants["match"] == "activations" else 0
        buffers = order.base.layout.buffers
        forward += int(buffers.stop > buffers.start)
        taken = min(examples, order.constants["examples"])
        return Passes(forward=forward * batches_of(taken, order.settings.batch_size))


class Merging(StepRule):
    """Averages the model that was sent with the neighbours', then trains as ever.

    Parameters
    ----------
    neighbours
        Each neighbour's weight, and its model as a flat vector, shape [P].
    match
        What units are matched by; ``"none"`` averages models as they are.
    examples
        How many of the client's examples activations are taken from, at most.
    bn_data
        Whether statistics of batch norm are measured on the client's own examples or on all clients'.
    """

    def __init__(
        self,
        neighbours: Sequence[tuple[float, Tensor]],
        match: Match,
        examples: int,
        bn_data: NormData = "private",
    ) -> None:
        self.neighbours = neighbours
        self.match = match
        self.examples = examples
        self.bn_data = bn_data

    def start(self, bench: Workbench) -> None:
        """Merge the neighbours' models into the model that was sent."""
        own = bench.vector.clone()
        merged = own.clone()
        layers = [] if self.match == "none" else hidden_layers(bench.network.backbone)
        mine = self._activations(bench, own) if layers and self.match == "activations" else []
        for weight, vector in self.neighbours:
            theirs = vector.to(own.device)
            if layers:
                theirs = reordered(theirs, bench.layout, layers, self._orders(bench, own, mine, theirs, layers))
            # As a difference, so that equal models stay as they are, bit for bit.
            merged.add_(theirs - own, alpha=weight)
        bench.vector.copy_(merged)
        if norms_in(bench.network.backbone):
            measure_statistics(bench.network.backbone, self._norm_examples(bench))

    def _norm_examples(self, bench: Workbench) -> Tensor:
        """What statistics are measured on; of all clients' examples as many, evenly spaced."""
        if self.bn_data == "private":
            return bench.features[: self.examples]
        assert bench.pooled is not None, "bn_data = 'shared' is for simulations, where the trainer has all examples"
        count = min(self.examples, len(bench.pooled))
        return bench.pooled[torch.arange(count, device=bench.pooled.device) * len(bench.pooled) // count]

    def _orders(
        self, bench: Workbench, own: Tensor, mine: Sequence[Tensor], theirs: Tensor, layers: Sequence[HiddenLayer]
    ) -> list[Tensor]:
        if self.match == "weights":
            return matched_by_weights(own, theirs, bench.layout, layers)
        examples = min(len(bench.features), self.examples)
        pairs = zip(mine, self._activations(bench, theirs), strict=True)
        return [matched_by_activations(a, b, examples) for a, b in pairs]

    def _activations(self, bench: Workbench, vector: Tensor) -> list[Tensor]:
        """Under a model, which is left on the bench, with statistics of batch norm that are those of the examples."""
        bench.vector.copy_(vector)
        return activations(bench.network.backbone, bench.features[: self.examples])
