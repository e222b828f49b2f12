"""How far kernels, and the gradients behind them, point the same way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def kernel_alignment(kernels: Tensor) -> Tensor:
    """``<K_a, K_b> / (||K_a|| ||K_b||)`` of kernels of the same rows, in [0, 1]; NaN where a kernel is zero.

    Parameters
    ----------
    kernels
        Shape [tasks, n, n]: symmetric and positive semi-definite.

    Returns
    -------
    Tensor
        Shape [tasks, tasks].
    """
    return _normalised(kernels.flatten(1) @ kernels.flatten(1).t())


def group_alignment(kernel: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """The alignment of groups of rows (clients, say), in [0, 1]; NaN where a group's kernel is zero.

    Groups have rows of their own, so their kernels cannot be compared entry by entry; but the second moments of their
    gradients, ``J_a^T J_a`` in the space of the parameters, can, and ``<J_a^T J_a, J_b^T J_b> = ||J_a J_b^T||^2``. So
    the alignment is ``||K_ab||^2 / (||K_aa|| ||K_bb||)``.

    Parameters
    ----------
    kernel
        Of all rows, shape [m, m].
    groups
        For each group its rows.
    """
    products = [[kernel[a][:, b].square().sum() for b in groups] for a in groups]
    return _normalised(torch.stack([torch.stack(row) for row in products]))


def mean_gradient_products(kernel: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """``<g_a, g_b>`` of the groups' mean gradients, shape [groups, groups], from the kernel of all rows."""
    member = torch.zeros(len(groups), len(kernel), dtype=kernel.dtype)
    for group, rows in enumerate(groups):
        member[group, rows] = 1.0 / len(rows)
    return member @ kernel @ member.t()


def cosines(products: Tensor) -> Tensor:
    """Cosines from inner products, shape [k, k], in [-1, 1]; NaN where a vector is zero."""
    return _normalised(products)


def _normalised(products: Tensor) -> Tensor:
    size = products.diagonal().clamp_min(0.0).sqrt()
    aligned = products / (size[:, None] * size)
    zero = size == 0
    aligned[zero] = torch.nan
    aligned[:, zero] = torch.nan
    return aligned.clamp(-1.0, 1.0)
