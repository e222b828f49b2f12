"""Merging with neighbours: units that do the same are matched before models are averaged.

"DIMAT: Decentralized Iterative Merging-And-Training for Deep Learning Models" (CVPR 2024, arXiv 2404.08079). Before a
client trains, it puts the units of each neighbour's model in the order of its own (:mod:`clients.techniques.matching`):
by their activations A (its own) and B (the neighbour's) on its own examples, shape [samples, units], standardised, in
every hidden layer k, or by the weights themselves (the authors' WM),

    C = A^T B / samples                           correlations, shape [units, units]
    p_k = argmax_p sum_i C[i, p(i)]               the unit of the neighbour that does what unit i does
    W_k <- W_k[p_k][:, p_{k-1}], b_k <- b_k[p_k]  the neighbour's model with its units in that order
    x_i <- x_i + sum_l W_il (x_l aligned - x_i)   with the weights of a gossip step

A unit that never changes correlates with nothing, and stays in its place where that costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from clients.techniques.base import Technique, Workbench
from clients.techniques.matching import (
    activations,
    hidden_layers,
    matched_by_activations,
    matched_by_weights,
    reordered,
)

Match = Literal["activations", "weights", "none"]


class Merging(Technique):
    """Averages the model that was sent with the neighbours', then trains as ever.

    Parameters
    ----------
    neighbours
        Each neighbour's weight, and its model as a flat vector, shape [P].
    match
        What units are matched by; ``"none"`` averages models as they are.
    examples
        How many of the client's examples activations are taken from, at most.
    """

    def __init__(self, neighbours: Sequence[tuple[float, Tensor]], match: Match, examples: int) -> None:
        self.neighbours = neighbours
        self.match = match
        self.examples = examples

    def start(self, bench: Workbench) -> None:
        """Merge."""
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

    def _orders(
        self, bench: Workbench, own: Tensor, mine: Sequence[Tensor], theirs: Tensor, layers: Sequence[str]
    ) -> list[Tensor]:
        if self.match == "weights":
            return matched_by_weights(own, theirs, bench.layout, layers)
        examples = min(len(bench.features), self.examples)
        pairs = zip(mine, self._activations(bench, theirs), strict=True)
        return [matched_by_activations(a, b, examples) for a, b in pairs]

    def _activations(self, bench: Workbench, vector: Tensor) -> list[Tensor]:
        """Under a model, which is left on the bench."""
        bench.vector.copy_(vector)
        return activations(bench.network.backbone, bench.features[: self.examples])


def merging_steps(neighbours: int, examples: int, batch_size: int) -> float:
    """What matching by activations costs, in local steps: a forward pass, a third of a step, for each model."""
    return (1 + neighbours) * math.ceil(examples / batch_size) / 3
