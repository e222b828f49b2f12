"""NTKMTL: task weights from the kernels of full gradients with respect to the shared parameters.

Paper: "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent Kernel Perspective" (NeurIPS 2025),
algorithm 1. Differences: a loss depends on the shared parameters only through the representation z, so heads are passed
once for all tasks, and only the backbone once for each task (n = 1) or for each task and chunk; of the latter only an n
by n Gram matrix per task is kept; weights are guarded against zero gradients, and for p up to 0.5 clipped to 50 times
their median. The authors' code has the sum of the lambda in the place of their mean, multiplies the shared gradient by
the number of tasks and then clips it to norm 1, of which the clip leaves the direction (``clip = 1``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.gradients import clipped, head_gradients, weighted_gradient
from fedmtl.balancing.network import Pullback, TaskNetwork
from fedmtl.balancing.options import HeadWeight, NTKExponent, WeightBound, weight_bound
from fedmtl.balancing.passes import Passes
from fedmtl.balancing.weights import KernelSize, balanced_weights, chunk_sizes, gram, kernel_size
from fedmtl.components import Param
from fedmtl.errors import ConfigError


class NTKMTL(Balancer):
    """NTKMTL: weights from the kernels of full gradients; costs a backward pass for each task and chunk.

    Examples
    --------
    Kernels that differ a hundredfold give weights that differ tenfold, so the weighted gradients are equally long:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.ntkmtl import NTKMTL
    >>> step = balance_gradients(NTKMTL(), [[10.0, 0.0], [0.0, 1.0]])
    >>> step.kernel_sizes, step.weights
    (tensor([100.,   1.]), tensor([0.7106, 7.1063]))
    >>> step.shared[0]
    tensor([7.1063, 7.1063])
    """

    def __init__(
        self,
        *,
        exponent: NTKExponent = 0.5,
        chunks: Annotated[int, Param("n, parts that a batch is cut into", ge=1, source="paper")] = 1,
        statistic: Annotated[
            KernelSize, Param("size of a kernel; denoised needs 2 chunks", source="paper")
        ] = "top_eig",
        head_weight: Annotated[
            HeadWeight, Param("whether omega scales the heads", source="authors' code")
        ] = "unweighted",
        clip: Annotated[float, Param("upper bound of the shared gradient's L2 norm; 0 for none", ge=0)] = 0.0,
        w_max: WeightBound = None,
        eps: Annotated[float, Param("added to lambda", gt=0)] = 1e-12,
    ) -> None:
        if statistic == "denoised" and chunks < 2:
            raise ConfigError("balancing.statistic = 'denoised' compares chunks: set balancing.chunks to 2 or more")
        self.exponent = exponent
        self.chunks = chunks
        self.statistic = statistic
        self.head_weight = head_weight
        self.clip = clip
        self.w_max = weight_bound(w_max, exponent)
        self.eps = eps

    def passes(self, calls: int, tasks: int, batches: int) -> Passes:
        """A backward pass for each task, or for each task and chunk and one more; a chunk's runs over the batch."""
        backward = tasks if self.chunks == 1 else self.chunks * tasks + 1
        return calls * Passes(forward=1, backward=backward, heads=3)

    def gradients(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step: one backward pass through the backbone for each task (and chunk, and one more)."""
        representation, pullback = network.represent(inputs)
        heads = network.head_pass(representation, targets)
        gradients = network.task_gradients(heads.slopes)
        single = min(self.chunks, len(inputs)) == 1
        per_task = [pullback(gradient) for gradient in gradients] if single else []
        lam = _squared_norms(per_task, heads.losses) if single else self._kernel_sizes(network, gradients, pullback)
        omega = balanced_weights(lam, self.exponent, self.w_max, self.eps)
        if task_weights is not None:
            omega = omega * omega.new_tensor(task_weights)
        shared = _weighted_sum(per_task, omega, lam) if single else pullback(weighted_gradient(gradients, omega, lam))
        own = head_gradients(network, heads.gradients, omega, self.head_weight)
        return StepGradients(clipped(shared, self.clip), own, heads.losses, omega, lam)

    def _kernel_sizes(self, network: TaskNetwork, gradients: Tensor, pullback: Pullback) -> Tensor:
        """Each task's lambda, shape [tasks], from Gram matrices over chunks."""
        batch = gradients.shape[1]
        sizes = chunk_sizes(batch, self.chunks)
        rows = gradients.new_empty(len(sizes), sum(parameter.numel() for parameter in network.shared))
        kernels = []
        for gradient in gradients:
            start = 0
            for row, size in zip(rows, sizes, strict=True):
                # The gradient of the chunk's own mean: other chunks' rows are zero, the factor undoes the batch mean.
                part = torch.zeros_like(gradient)
                part[start : start + size] = gradient[start : start + size] * (batch / size)
                start += size
                if network.shared:
                    torch.cat([found.reshape(-1) for found in pullback(part)], out=row)
            kernels.append(gram(rows))
        return kernel_size(torch.stack(kernels), self.statistic)


def _squared_norms(per_task: Sequence[Sequence[Tensor]], losses: Tensor) -> Tensor:
    """``||g_i||^2`` for each task, shape [tasks]; zeros where nothing is shared."""
    if not per_task[0]:
        return torch.zeros_like(losses)
    norms = torch._foreach_norm([gradient for gradients in per_task for gradient in gradients])
    return torch.stack(norms).view(len(per_task), -1).square().sum(1)


def _weighted_sum(per_task: Sequence[Sequence[Tensor]], omega: Tensor, lam: Tensor) -> list[Tensor]:
    """``sum_i omega_i g_i`` over the tasks whose gradient is finite.

    The weights are read off the device, a wait that is nothing beside a pass for each task.
    """
    total = [torch.zeros_like(gradient) for gradient in per_task[0]]
    if total:
        for gradients, weight, size in zip(per_task, omega.tolist(), lam.tolist(), strict=True):
            if math.isfinite(size):
                torch._foreach_add_(total, list(gradients), alpha=weight)
    return total
