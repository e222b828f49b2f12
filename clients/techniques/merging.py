"""Merging with neighbours: units that do the same are matched before models are averaged.

"DIMAT: Decentralized Iterative Merging-And-Training for Deep Learning Models" (CVPR 2024, arXiv 2404.08079). A network
computes the same when the units of a hidden layer change places, so that two of them may not be averaged unit by unit.
Before a client trains, it runs its own model and each neighbour's on its own examples; in every hidden layer k, with
the units' activations A (its own) and B (the neighbour's), shape [samples, units], standardised,

    C = A^T B / samples                           correlations, shape [units, units]
    p_k = argmax_p sum_i C[i, p(i)]               the unit of the neighbour that does what unit i does
    W_k <- W_k[p_k][:, p_{k-1}], b_k <- b_k[p_k]  the neighbour's model with its units in that order
    x_i <- x_i + sum_l W_il (x_l aligned - x_i)   with the weights of a gossip step

A channel of a convolution is a unit; its pixels are samples. A unit that never changes correlates with nothing, and
stays in its place where that costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from clients.techniques.base import Technique, Workbench
from fedmtl.errors import ConfigError
from fedmtl.models.shapes import Flatten
from fedmtl.parameters import ParameterLayout

_SHAPELESS = (Flatten, nn.Flatten, nn.ReLU, nn.MaxPool2d)
_LAYERS = (nn.Linear, nn.Conv2d)
_IN_PLACE = 1e-6  # what a correlation must be better by for a unit to move


class Merging(Technique):
    """Averages the model that was sent with the neighbours', then trains as ever.

    Parameters
    ----------
    neighbours
        Each neighbour's weight, and its model as a flat vector, shape [P].
    match
        Whether units are matched; otherwise models are averaged as they are.
    examples
        How many of the client's examples activations are taken from, at most.
    """

    def __init__(self, neighbours: Sequence[tuple[float, Tensor]], match: bool, examples: int) -> None:
        self.neighbours = neighbours
        self.match = match
        self.examples = examples

    def start(self, bench: Workbench) -> None:
        """Merge."""
        own = bench.vector.clone()
        merged = own.clone()
        layers = hidden_layers(bench.network.backbone) if self.match else []
        mine = self._activations(bench, own) if layers else []
        for weight, vector in self.neighbours:
            theirs = vector.to(own.device)
            if layers:
                found = [matched(a, b) for a, b in zip(mine, self._activations(bench, theirs), strict=True)]
                theirs = reordered(theirs, bench.layout, layers, found)
            # As a difference, so that equal models stay as they are, bit for bit.
            merged.add_(theirs - own, alpha=weight)
        bench.vector.copy_(merged)

    def _activations(self, bench: Workbench, vector: Tensor) -> list[Tensor]:
        """Of each hidden layer under a model, standardised, shape [samples, units]."""
        bench.vector.copy_(vector)
        x, found = bench.features[: self.examples], []
        with torch.inference_mode():
            for module in bench.network.backbone.children():
                x = module(x)
                if isinstance(module, nn.ReLU):
                    found.append(_standardised(x.movedim(1, -1).flatten(0, -2)))
        return found


def hidden_layers(backbone: nn.Module) -> list[str]:
    """The names of the layers with units, in order.

    Raises
    ------
    ConfigError
        If the backbone is no chain of layers, each with a ReLU after it.
    """
    modules = list(backbone.named_children()) if isinstance(backbone, nn.Sequential) else [("", backbone)]
    layers = [name for name, module in modules if isinstance(module, _LAYERS)]
    strange = next((m for _, m in modules if not isinstance(m, (*_SHAPELESS, *_LAYERS))), None)
    if strange is not None or len(layers) != sum(isinstance(module, nn.ReLU) for _, module in modules):
        raise ConfigError(
            "units can be matched in chains of linear layers and convolutions with ReLU, not in this model "
            f"({type(strange or backbone).__name__}): use model.name = 'mlp' or 'lenet', or strategy.match = false"
        )
    return layers


def matched(mine: Tensor, theirs: Tensor) -> Tensor:
    """p, int64 of shape [units]: for each unit of the one the unit of the other that correlates with it."""
    from scipy.optimize import linear_sum_assignment

    correlations = (mine.T @ theirs / len(mine)).cpu().double().numpy()
    _, columns = linear_sum_assignment(correlations + _IN_PLACE * np.eye(len(correlations)), maximize=True)
    return torch.from_numpy(columns.astype(np.int64)).to(mine.device)


def reordered(vector: Tensor, layout: ParameterLayout, layers: Sequence[str], orders: Sequence[Tensor]) -> Tensor:
    """The same network with the units of its hidden layers in these orders."""
    result = vector.clone()
    tensors = {entry.name: result[entry.start : entry.stop].view(entry.shape) for entry in layout.entries}
    before: Tensor | None = None
    for name, order in zip(layers, orders, strict=True):
        weight, bias = tensors[f"backbone.{name}.weight"], tensors[f"backbone.{name}.bias"]
        weight.copy_(_inputs_in_order(weight, before)[order])
        bias.copy_(bias[order])
        before = order
    for name, tensor in tensors.items():
        if name.startswith("heads.") and name.endswith(".weight"):
            tensor.copy_(_inputs_in_order(tensor, before))
    return result


def _inputs_in_order(weight: Tensor, order: Tensor | None) -> Tensor:
    """A layer's weight with its inputs in the order of the units before it."""
    if order is None:
        return weight
    pixels = weight.shape[1] // len(order)  # of a channel, where convolutions were flattened
    inputs = order if pixels == 1 else (order[:, None] * pixels + torch.arange(pixels, device=order.device)).flatten()
    return weight[:, inputs]


def _standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1; zeros where nothing varies."""
    x = x - x.mean(0)
    deviation = x.square().mean(0).sqrt()
    # A column of one value has a deviation of rounding errors, which must not become a direction.
    return torch.where(deviation > 1e-6, x / deviation.clamp(min=1e-6), 0.0)


def merging_steps(neighbours: int, examples: int, batch_size: int) -> float:
    """What matching costs, in local steps: a forward pass, a third of a step, for each model."""
    return (1 + neighbours) * math.ceil(examples / batch_size) / 3
