"""Which units of two networks do the same.

A network computes the same when the units of a hidden layer change places, so that two networks may not be averaged
unit by unit: first, the units of one are put in the order of the other's. A channel of a convolution is a unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedmtl.models.chain import HiddenLayer
from fedmtl.parameters import ParameterLayout

_ROUNDING = 1e-6  # what sums of products must be better by, relative to the largest, for units to move
_SWEEPS = 100


def activations(backbone: nn.Module, features: Tensor) -> list[Tensor]:
    """Of each hidden layer on some examples, standardised, shape [samples, units]; pixels are samples."""
    x, found = features, []
    with torch.inference_mode():
        for module in backbone.children():
            x = module(x)
            if isinstance(module, nn.ReLU):
                found.append(_standardised(x.movedim(1, -1).flatten(0, -2)))
    return found


def matched_by_activations(mine: Tensor, theirs: Tensor, examples: int) -> Tensor:
    """``p = argmax_p sum_i C[i, p(i)]`` with ``C = mine^T theirs / samples``, from activations [samples, units].

    A correlation from n examples has an error of about ``1/sqrt(n)``; by less than that no unit changes places. From
    many examples this is the plain assignment; from few, units that do nearly the same are not shuffled by chance.

    Returns
    -------
    Tensor
        p, int64 of shape [units]: for each unit of the one the unit of the other that does the same.
    """
    correlations = (mine.T @ theirs / len(mine)).cpu().double().numpy()
    return _assigned(correlations, 1.0 / math.sqrt(examples)).to(mine.device)


def matched_by_weights(
    mine: Tensor, theirs: Tensor, layout: ParameterLayout, layers: Sequence[HiddenLayer]
) -> list[Tensor]:
    """For each hidden layer the p for which the weights' inner product is largest, given those of the layers beside it.

    With each layer's weight W_k, inputs and outputs in order, and its bias b_k, of both models (the other's with '),

        p_k = argmax_p sum_i A[i, p(i)],    A = W_k W'_k[:, p_{k-1}]^T + b_k b'_k^T + W_{k+1}^T W'_{k+1}[p_{k+1}]

    layer by layer, from the orders as they are, until nothing changes: a local optimum (Git Re-Basin's algorithm,
    arXiv 2209.04836). The scale and the offset of a batch norm count as further biases.
    """
    own, other = _tensors(mine, layout), _tensors(theirs, layout)
    heads = [name for name in own if name.startswith("heads.") and name.endswith(".weight")]
    units = [len(own[f"backbone.{layer.name}.weight"]) for layer in layers]
    orders = [torch.arange(count, device=mine.device) for count in units]
    for _ in range(_SWEEPS):
        changed = False
        for k, layer in enumerate(layers):
            before = orders[k - 1] if k else None
            a = own[f"backbone.{layer.name}.weight"].flatten(1)
            A = a @ in_order(other[f"backbone.{layer.name}.weight"], before).flatten(1).T
            for name in _per_unit(layer, own, ("weight", "bias")):
                A += torch.outer(own[name], other[name])
            after = [f"backbone.{layers[k + 1].name}.weight"] if k + 1 < len(layers) else heads
            for weight in after:
                there = other[weight] if weight in heads else other[weight][orders[k + 1]]
                A += _by_input(own[weight], units[k]) @ _by_input(there, units[k]).T
            gains = A[:, orders[k]].cpu().double().numpy()  # so that the present order is the diagonal
            step = _assigned(gains, _ROUNDING * float(np.abs(gains).max(initial=0.0))).to(mine.device)
            if not torch.equal(step, torch.arange(units[k], device=mine.device)):
                orders[k], changed = orders[k][step], True
        if not changed:
            break
    return orders


def reordered(
    vector: Tensor, layout: ParameterLayout, layers: Sequence[HiddenLayer], orders: Sequence[Tensor]
) -> Tensor:
    """The same network with the units of its hidden layers in these orders."""
    result = vector.clone()
    tensors = _tensors(result, layout)
    before: Tensor | None = None
    for layer, order in zip(layers, orders, strict=True):
        weight = tensors[f"backbone.{layer.name}.weight"]
        weight.copy_(in_order(weight, before)[order])
        for name in _per_unit(layer, tensors, ("weight", "bias", "running_mean", "running_var")):
            tensors[name].copy_(tensors[name][order])
        before = order
    for name, tensor in tensors.items():
        if name.startswith("heads.") and name.endswith(".weight"):
            tensor.copy_(in_order(tensor, before))
    return result


def in_order(weight: Tensor, order: Tensor | None) -> Tensor:
    """A layer's weight with its inputs in the order of the units before it."""
    if order is None:
        return weight
    pixels = weight.shape[1] // len(order)  # of a channel, where convolutions were flattened
    inputs = order if pixels == 1 else (order[:, None] * pixels + torch.arange(pixels, device=order.device)).flatten()
    return weight[:, inputs]


def _tensors(vector: Tensor, layout: ParameterLayout) -> dict[str, Tensor]:
    return {entry.name: vector[entry.start : entry.stop].view(entry.shape) for entry in layout.entries}


def _per_unit(layer: HiddenLayer, tensors: Mapping[str, Tensor], of_norms: Sequence[str]) -> list[str]:
    """The tensors with an entry for each unit: the layer's bias, and these of its norms, where they are there."""
    names = [f"{layer.name}.bias", *(f"{norm}.{part}" for norm in layer.norms for part in of_norms)]
    return [f"backbone.{name}" for name in names if f"backbone.{name}" in tensors]


def _by_input(weight: Tensor, units: int) -> Tensor:
    """A layer's weight as a row for each unit before it, shape [units, whatever else]."""
    return weight.reshape(len(weight), units, -1).movedim(1, 0).flatten(1)


def _assigned(gains: np.ndarray[tuple[int, int], np.dtype[np.float64]], margin: float) -> Tensor:
    """The assignment of the largest sum; a unit moves only where that gains more than `margin`."""
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(gains + margin * np.eye(len(gains)), maximize=True)
    return torch.from_numpy(columns.astype(np.int64))


def _standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1; zeros where nothing varies."""
    x = x - x.mean(0)
    deviation = x.square().mean(0).sqrt()
    # A column of one value has a deviation of rounding errors, which must not become a direction.
    return torch.where(deviation > 1e-6, x / deviation.clamp(min=1e-6), 0.0)
