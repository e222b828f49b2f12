"""What balancers do with gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.options import HeadWeight


def head_gradients(
    network: TaskNetwork, gradients: Sequence[Tensor], weights: Tensor, head_weight: HeadWeight
) -> list[Sequence[Tensor]]:
    """The heads' gradients, head by head, times their tasks' weights or not (in place)."""
    if head_weight == "weighted" and gradients:
        factors = [weight for weight, head in zip(weights.unbind(), network.heads, strict=True) for _ in head]
        torch._foreach_mul_(list(gradients), factors)
    return network.by_head(gradients)


def weighted_gradient(gradients: Tensor, weights: Tensor, lam: Tensor) -> Tensor:
    """``sum_i w_i G_i`` over the tasks whose gradient is finite, shape [...].

    Parameters
    ----------
    gradients
        Shape [tasks, ...].
    weights
        Shape [tasks], finite.
    lam
        A statistic that is finite just where a task's gradient is, shape [tasks].
    """
    flat = gradients.view(len(weights), -1)
    if not (lam.is_cpu and all(map(math.isfinite, lam.tolist()))):
        # A weight of zero would not do: zero times NaN is NaN.
        flat = flat.masked_fill(~lam.isfinite().unsqueeze(1), 0.0)
    return (weights @ flat).view(gradients.shape[1:])


def clipped(gradients: Sequence[Tensor], bound: float) -> Sequence[Tensor]:
    """The gradients, scaled down so that their common L2 norm is at most `bound`; 0 for no bound."""
    if bound == 0.0 or not gradients:
        return gradients
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = (bound / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)
    return torch._foreach_mul(list(gradients), factor)
