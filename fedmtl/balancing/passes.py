"""The passes through a network that balancers are made of.

Every task reads an alias of the shared representation z: z is expanded to [tasks, batch, width] and cut again, which
copies nothing, and whose backward stacks the tasks' gradients. So one run of the autograd engine keeps them apart, and
a hook there may weigh them before they go on, together, into the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedmtl.balancing.base import TaskNetwork
from fedmtl.balancing.options import HeadWeight


class Pass(NamedTuple):
    """Gradients of a pass through heads and backbone.

    Attributes
    ----------
    shared
        The gradients of the backbone's parameters.
    heads
        The gradients of the heads' parameters, each of its own task's loss, in the order of `network.head_parameters`.
    losses
        Each task's mean loss, detached, shape [tasks].
    """

    shared: tuple[Tensor, ...]
    heads: tuple[Tensor, ...]
    losses: Tensor


class HeadPass(NamedTuple):
    """What the heads say about a representation.

    Attributes
    ----------
    representation
        The backbone's output with its graph, shape [batch, width].
    gradients
        For each task the gradient of its loss with respect to the representation, shape [tasks, batch, width].
    heads, losses
        As in `Pass`.
    """

    representation: Tensor
    gradients: Tensor
    heads: tuple[Tensor, ...]
    losses: Tensor


def one_pass(
    network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], weigh: Callable[[Tensor], Tensor] | None = None
) -> Pass:
    """Forward and back through everything, once.

    Parameters
    ----------
    network, inputs, targets
        As `Balancer.gradients` has them.
    weigh
        Takes the tasks' gradients with respect to the representation, shape [tasks, batch, width], and returns what
        goes on into the backbone instead, of the same shape; None to leave them as they are.
    """
    representation = network.backbone(inputs)
    roots: Sequence[Tensor] = network.shared
    if weigh is None:
        losses = torch.stack(network.losses(representation, targets))
    else:
        if not network.shared:
            # Nothing to learn below: the representation stands in, so that the gradients are asked for all the same.
            representation = representation.detach().requires_grad_()
            roots = [representation]
        aliases = representation.expand(len(targets), *representation.shape)
        aliases.register_hook(weigh)
        losses = torch.stack(network.losses_at(aliases.unbind(), targets))
    gradients = torch.autograd.grad(losses.sum(), [*roots, *network.head_parameters])
    return Pass(gradients[: len(network.shared)], gradients[len(roots) :], losses.detach())


def head_pass(network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> HeadPass:
    """Forward through backbone and heads, and back as far as the representation."""
    representation = network.backbone(inputs)
    aliases = representation.detach().expand(len(targets), *representation.shape).requires_grad_()
    losses = torch.stack(network.losses_at(aliases.unbind(), targets))
    gradients, *heads = torch.autograd.grad(losses.sum(), [aliases, *network.head_parameters])
    return HeadPass(representation, gradients, tuple(heads), losses.detach())


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
    """The heads' gradients, head by head, times their tasks' weights or not (in place)."""
    if head_weight == "weighted":
        factors = [weight for weight, head in zip(weights.unbind(), network.heads, strict=True) for _ in head]
        torch._foreach_mul_(list(gradients), factors)
    return network.by_head(gradients)


def weighted(gradients: Tensor, weights: Tensor, lam: Tensor) -> Tensor:
    """Each task's gradient times its weight, and zero where it is not finite.

    Parameters
    ----------
    gradients
        Shape [tasks, ...].
    weights
        Shape [tasks], finite.
    lam
        A statistic that is finite just where a task's gradient is, shape [tasks].
    """
    shape = (-1,) + (1,) * (gradients.dim() - 1)
    product = gradients * weights.view(shape)
    if lam.is_cpu and all(map(math.isfinite, lam.tolist())):
        return product
    # A weight of zero would not do: zero times NaN is NaN.
    return product.masked_fill_(~lam.isfinite().view(shape), 0.0)


def clipped(gradients: Sequence[Tensor], bound: float) -> Sequence[Tensor]:
    """The gradients, scaled down so that their common L2 norm is at most `bound`; 0 for no bound."""
    if bound == 0.0 or not gradients:
        return gradients
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = (bound / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)
    return torch._foreach_mul(list(gradients), factor)
