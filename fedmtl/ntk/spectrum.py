"""Spectra of kernels: all eigenvalues where the kernel fits, the largest ones and the trace where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmtl.randomness import derive_seed, torch_generator

FLOOR = 1e-10
"""Eigenvalues below this share of the largest count as zero: rounding in float64 leaves about 1e-15 times the size."""

Matvec = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of a symmetric positive semi-definite kernel and what follows from them.

    Attributes
    ----------
    size
        Rows of the kernel.
    eigenvalues
        In descending order, float64, none negative: all of them, or the largest.
    trace, squared
        ``tr K`` and ``tr K^2``.
    complete
        Whether all eigenvalues are there; else trace and squared are estimates.
    trace_error
        Standard error of the trace; 0 where it is exact.
    """

    size: int
    eigenvalues: Tensor
    trace: float
    squared: float
    complete: bool
    trace_error: float = 0.0

    @property
    def top(self) -> float:
        """The largest eigenvalue."""
        return float(self.eigenvalues[0])

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue, at most ``1 / FLOOR``; NaN for a zero kernel or an incomplete spectrum."""
        if not self.complete or self.top == 0.0:
            return math.nan
        return self.top / max(float(self.eigenvalues[-1]), FLOOR * self.top)

    @property
    def effective_rank(self) -> float:
        """``(tr K)^2 / tr K^2``, between 1 and the rank: how many eigenvalues carry the kernel; NaN if it is zero."""
        return self.trace * self.trace / self.squared if self.squared > 0 else math.nan


def dense_spectrum(kernel: Tensor) -> Spectrum:
    """The spectrum of a kernel that is there as a matrix, shape [m, m]; NaN where it holds what is not finite."""
    if not bool(kernel.isfinite().all()):
        return Spectrum(len(kernel), kernel.new_full((len(kernel),), math.nan), math.nan, math.nan, complete=True)
    values = torch.linalg.eigvalsh(kernel).flip(0).clamp_min(0.0)
    return Spectrum(len(kernel), values, float(kernel.trace()), float(kernel.square().sum()), complete=True)


def free_spectrum(matvec: Matvec, size: int, seed: int, *, largest: int = 32, probes: int = 32) -> Spectrum:
    """The spectrum of a kernel of which only products with vectors are known.

    Parameters
    ----------
    matvec
        ``v -> K v``, float64, shape [m].
    size
        m.
    seed
        Of the first Lanczos vector and of the probes.
    largest
        Eigenvalues to find, by Lanczos.
    probes
        Random sign vectors z for ``tr K = E[z . K z]`` and ``tr K^2 = E[||K z||^2]`` (Hutchinson, 1989), of what is
        left beside the eigenvalues that were found.
    """
    values, vectors = top_eigenpairs(matvec, size, seed, min(largest, size - 1))
    trace, squared, error = hutchinson(matvec, size, seed, probes, vectors)
    trace, squared = trace + float(values.sum()), squared + float(values.square().sum())
    return Spectrum(size, values, trace, squared, complete=False, trace_error=error)


def hutchinson(
    matvec: Matvec, size: int, seed: int, probes: int, known: Tensor | None = None
) -> tuple[float, float, float]:
    """Estimates of ``tr K`` and ``tr K^2``, and the standard error of the former.

    What is found along `known` eigenvectors, orthonormal columns, is left out: it need not be estimated.
    """
    draw = torch_generator(seed, "ntk probes")
    first, second = torch.empty(probes, dtype=torch.float64), torch.empty(probes, dtype=torch.float64)
    for probe in range(probes):
        z = torch.randint(0, 2, (size,), generator=draw, dtype=torch.float64) * 2 - 1
        if known is not None:
            z -= known @ (known.t() @ z)
        product = matvec(z)
        first[probe], second[probe] = z @ product, product @ product
    error = float(first.std()) / math.sqrt(probes) if probes > 1 else math.inf
    return float(first.mean()), float(second.mean()), error


def top_eigenpairs(matvec: Matvec, size: int, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues in descending order, and their eigenvectors, by restarted Lanczos (ARPACK).

    Returns
    -------
    values, vectors
        Shape [count], and orthonormal columns, shape [size, count]; zeros for a kernel that is zero, NaN for one that
        is not finite.

    Raises
    ------
    ValueError
        Unless ``1 <= count < size``.
    """
    if not 1 <= count < size:
        raise ValueError(f"Lanczos finds 1 to {size - 1} eigenvalues of a kernel of {size} rows, not {count}")
    from scipy.sparse.linalg import LinearOperator, eigsh

    def product(vector: np.ndarray) -> np.ndarray:
        return matvec(torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64).reshape(-1))).numpy()

    start = np.random.default_rng(derive_seed(seed, "ntk lanczos")).standard_normal(size)
    first = product(start)
    if not first.any() or not np.isfinite(first).all():  # ARPACK cannot start from what is mapped to nothing or beyond
        nothing = torch.full((size, count), math.nan if first.any() else 0.0, dtype=torch.float64)
        return nothing[0].clone(), nothing
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, k=count, which="LA", v0=start)
    order = np.argsort(values)[::-1]
    return torch.from_numpy(values[order]).clamp_min(0.0), torch.from_numpy(vectors[:, order])
