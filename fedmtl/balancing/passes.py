"""The passes through a network that balancers are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedmtl.balancing.base import TaskNetwork
from fedmtl.balancing.options import HeadWeight


class HeadPass(NamedTuple):
    """What the heads say about a representation.

    Attributes
    ----------
    representation
        The backbone's output with its graph, shape [batch, width].
    gradients
        For each task the gradient of its loss with respect to the representation, shape [tasks, batch, width].
    heads
        The gradients of the heads' parameters, each of its own task's loss, in the order of `network.head_parameters`.
    losses
        Each task's mean loss, detached, shape [tasks].
    """

    representation: Tensor
    gradients: Tensor
    heads: tuple[Tensor, ...]
    losses: Tensor


def head_pass(network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> HeadPass:
    """Forward through backbone and heads, and back to the representation for each task by itself.

    Every task reads an alias of the representation, a leaf of its own, so that one call of the autograd engine gives
    all tasks' gradients apart from each other.
    """
    representation = network.backbone(inputs)
    aliases = [representation.detach().requires_grad_() for _ in network.tasks]
    losses = network.losses_at(aliases, targets)
    gradients = torch.autograd.grad(losses, [*aliases, *network.head_parameters])
    tasks = len(aliases)
    return HeadPass(
        representation,
        torch.stack(gradients[:tasks]),
        gradients[tasks:],
        torch.stack(losses).detach(),
    )


def backbone_pass(
    network: TaskNetwork, representation: Tensor, gradient: Tensor, *, keep: bool = False
) -> tuple[Tensor, ...]:
    """Backward through the backbone, from a gradient with respect to the representation; `keep` its graph for more."""
    if not network.shared:
        return ()
    return torch.autograd.grad(representation, network.shared, gradient, retain_graph=keep)


def head_gradients(
    network: TaskNetwork, gradients: Sequence[Tensor], weights: Tensor, head_weight: HeadWeight
) -> list[list[Tensor]]:
    """The heads' gradients, head by head, times their tasks' weights or not."""
    if head_weight == "unweighted":
        return network.by_head(gradients)
    factors = [weight for weight, head in zip(weights.unbind(), network.heads, strict=True) for _ in head]
    return network.by_head(torch._foreach_mul(list(gradients), factors))


def combine(gradients: Tensor, weights: Tensor, lam: Tensor | None = None) -> Tensor:
    """``sum_i w_i G_i`` over the first dimension; tasks whose `lam` is not finite are left out.

    Parameters
    ----------
    gradients
        Shape [tasks, ...]; the left-out tasks' entries are overwritten by zeros.
    weights
        Shape [tasks], finite.
    lam
        A statistic that is finite just where a task's gradient is, shape [tasks].
    """
    tasks = gradients.shape[0]
    flat = gradients.view(tasks, -1)
    if lam is not None:
        # A weight of zero would not do: zero times NaN is NaN.
        flat.masked_fill_(~lam.isfinite().unsqueeze(1), 0.0)
    return (weights @ flat).view(gradients.shape[1:])


def clipped(gradients: Sequence[Tensor], bound: float) -> Sequence[Tensor]:
    """The gradients, scaled down so that their common L2 norm is at most `bound`; 0 for no bound."""
    if bound == 0.0 or not gradients:
        return gradients
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = (bound / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)
    return torch._foreach_mul(list(gradients), factor)
