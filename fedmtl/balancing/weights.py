"""From gradient kernels to task weights: the mathematics of NTKMTL on small tensors, apart from any model.

Source: "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent Kernel Perspective" (NeurIPS
2025), equations 14, 15 and 17, on the gradients of losses, as its authors' code has them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

KernelSize = Literal["top_eig", "trace", "denoised"]

_LARGEST = 1e30  # no weight is larger, so that products with gradients stay within float32


def gram(gradients: Tensor) -> Tensor:
    """Kernels of loss gradients: ``K_ab = <g_a, g_b>``.

    Parameters
    ----------
    gradients
        Shape [..., n, P].

    Returns
    -------
    Tensor
        Shape [..., n, n], positive semi-definite.
    """
    return gradients @ gradients.mT


def kernel_size(kernel: Tensor, statistic: KernelSize) -> Tensor:
    """The size lambda of a task's kernel; for n = 1 the squared norm of the gradient, whatever the statistic.

    Parameters
    ----------
    kernel
        Gram matrices of the gradients of n chunks, shape [..., n, n].
    statistic
        ``"top_eig"``: the largest eigenvalue. ``"trace"``: the trace over n. ``"denoised"``: the mean off-diagonal
        entry, ``(||sum_j g_j||^2 - sum_j ||g_j||^2) / (n (n - 1))``, which is unbiased for the squared norm of the true
        gradient and may be negative; needs n >= 2.

    Returns
    -------
    Tensor
        Shape [...]; not a number where an entry of the kernel is not finite.
    """
    n = kernel.shape[-1]
    trace = kernel.diagonal(dim1=-2, dim2=-1).sum(-1)
    if statistic == "denoised" and n > 1:
        return (kernel.sum((-2, -1)) - trace) / (n * (n - 1))
    if statistic == "trace" or n == 1:
        return trace / n
    # The eigenvalue routine refuses what is not finite, so it sees zeros there, and the sum brings the fault back.
    fault = kernel.sum((-2, -1))
    top = torch.linalg.eigvalsh(kernel.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))[..., -1]
    return torch.where(fault.isfinite(), top, fault)


def chunk_sizes(batch: int, chunks: int) -> list[int]:
    """Sizes of the chunks of a batch, differing by at most one; never an empty chunk, so maybe fewer of them."""
    n = min(chunks, batch)
    return [batch // n + (j < batch % n) for j in range(n)]


@functools.lru_cache(maxsize=512)
def chunk_selector(batch: int, chunks: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Shape [batch, n]: ``(B / b_j)^2`` where row r belongs to chunk j, else 0.

    A product with it adds squared row norms of the gradient of a batch mean to squared norms of the gradients of chunk
    means.
    """
    selector = torch.zeros(batch, min(chunks, batch), dtype=dtype)
    start = 0
    for j, size in enumerate(chunk_sizes(batch, chunks)):
        selector[start : start + size, j] = (batch / size) ** 2
        start += size
    return selector.to(device)


def representation_sizes(gradients: Tensor, chunks: int, statistic: KernelSize) -> Tensor:
    """The lambdas of NTKMTL-SR from gradients with respect to the shared representation, shape [K].

    A chunk's loss touches only its own rows of the representation, so the Gram matrix over chunks is diagonal and its
    largest eigenvalue is the largest squared chunk norm ``(B / b_j)^2 ||G_i restricted to chunk j||^2``; no chunk needs
    a pass of its own.

    Parameters
    ----------
    gradients
        For each task the gradient of its mean loss over the batch, shape [K, B, width].
    chunks
        n; a batch of fewer rows has as many chunks as rows.
    statistic
        ``"top_eig"`` or ``"trace"`` (over n).
    """
    selector = chunk_selector(gradients.shape[1], chunks, gradients.device, gradients.dtype)
    norms = gradients.square().sum(2) @ selector
    return norms.mean(1) if statistic == "trace" else norms.amax(1)


@functools.lru_cache(maxsize=512)
def _sums(batch: int, chunks: int, outputs: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of `head_chunk_norms`: chunks by examples, [n, B]; outputs of one task, [O, O]; and of which, [O, K]."""
    member = torch.repeat_interleave(torch.eye(len(outputs), dtype=dtype), torch.tensor(outputs), 0)
    selector = chunk_selector(batch, chunks, torch.device("cpu"), dtype)
    return selector.t().contiguous(), member @ member.t(), member


def head_chunk_norms(slopes: Tensor, weights: Tensor, outputs: tuple[int, ...], chunks: int) -> list[list[float]]:
    """Squared norms ``(B / b_j)^2 ||G_i restricted to chunk j||^2`` from linear heads, without their gradients G_i.

    Row r of G_i is ``s W_i`` with the task's slopes s of example r, so its squared norm is ``s W_i W_i^T s^T``. One
    product does this for all tasks; it needs the memory of the slopes, not K times that of the representation.

    Parameters
    ----------
    slopes
        All tasks' slopes side by side, finite, on the CPU, shape [B, O].
    weights
        All heads' weights one below the other, shape [O, width].
    outputs
        How many of the O belong to each task.
    chunks
        n; a batch of fewer rows has as many chunks as rows.

    Returns
    -------
    list
        For each chunk the K norms. Numbers are not finite for any task if slopes are not finite for one.
    """
    selector, block, member = _sums(slopes.shape[0], chunks, outputs, slopes.dtype)
    rows = (slopes @ (weights @ weights.t()).mul_(block)).mul_(slopes)
    norms: list[list[float]] = (selector @ rows @ member).tolist()
    return norms


def balanced_weights(lam: Tensor, exponent: float = 0.5, w_max: float = 50.0, eps: float = 1e-12) -> Tensor:
    """``omega_i = (mean_j lambda_j / lambda_i)^p``, clipped to ``[1 / w_max, w_max]`` times the median.

    A lambda that is not finite, or negative (de-noised), counts as 0; `eps` is added to mean and lambda alike, so that
    lambdas that are all equal, zeros included, give ones to the last bit. The median is taken over the tasks that have
    a gradient, and is the lower one of two: the clip shall hold back a task that has all but stopped, not raise others.
    Without a clip the weight of a task that has no gradient would be nothing but `eps`, and could scale its head a
    billionfold; it is the largest of those that have one.

    Parameters
    ----------
    lam
        Shape [..., K].
    exponent
        p: 0 gives equal weights, 0.5 equal norms of the weighted gradients, 1 equal decreases of the losses.
    w_max
        Infinity for no clip.

    Returns
    -------
    Tensor
        Shape [..., K]; finite, at least 0.
    """
    if lam.is_cpu and lam.dim() == 1:
        return torch.tensor(few_weights(lam.tolist(), exponent, w_max, eps), dtype=lam.dtype)
    size = lam.nan_to_num(nan=0.0, posinf=0.0).clamp_min(0.0)
    omega = ((size.mean(-1, keepdim=True) + eps) / (size + eps)).pow(exponent).clamp_max(_LARGEST)
    if math.isinf(w_max):
        live = size > eps
        largest = torch.where(live, omega, 0.0).amax(-1, keepdim=True)
        return torch.where(~live & live.any(-1, keepdim=True), largest, omega)
    median = torch.where(size > eps, omega, math.nan).nanmedian(-1, keepdim=True).values.nan_to_num(nan=1.0)
    return torch.clamp(omega, median / w_max, (median * w_max).clamp_max(_LARGEST))


def few_weights(lam: list[float], exponent: float, w_max: float, eps: float) -> list[float]:
    """The same for one step of one client on the CPU: a dozen operators on K numbers would cost ten times as much."""
    size = _sizes(lam)
    omega = _ratios(size, exponent, eps)
    # The median lies between least and largest, so where these are within the bound of each other, no clip can bind.
    if not math.isinf(w_max) and max(omega) <= min(omega) * w_max:
        return omega
    live = sorted(weight for weight, value in zip(omega, size, strict=True) if value > eps)
    if math.isinf(w_max):
        return [weight if value > eps or not live else live[-1] for weight, value in zip(omega, size, strict=True)]
    median = live[(len(live) - 1) // 2] if live else 1.0
    bound = min(median * w_max, _LARGEST)
    return [min(max(weight, median / w_max), bound) for weight in omega]


def unbounded_weights(lam: Sequence[float], exponent: float, eps: float) -> list[float]:
    """``(mean_j lambda_j / lambda_i)^p`` with its guards, for who bounds it otherwise; large without a gradient."""
    return _ratios(_sizes(lam), exponent, eps)


def _sizes(lam: Sequence[float]) -> list[float]:
    return [value if 0.0 < value < math.inf else 0.0 for value in lam]


def _ratios(size: list[float], exponent: float, eps: float) -> list[float]:
    mean = sum(size) / len(size) + eps
    return [_power(mean / (value + eps), exponent) for value in size]


def _power(ratio: float, exponent: float) -> float:
    try:
        return min(math.pow(ratio, exponent), _LARGEST)
    except OverflowError:
        return _LARGEST
