"""NTKMTL-SR: task weights from gradients with respect to the shared representation, in one pass.

Paper: "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent Kernel Perspective" (NeurIPS
2025), algorithm 2. Differences: the n by n kernel over chunks is diagonal, so its largest eigenvalue is read off the
rows of one gradient instead of n passes per task; weights are guarded against zero gradients, and for p up to
0.5 clipped to 50 times their median. The authors' code has the sum of the lambda in the place of their mean, so that
its steps are K^p times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.gradients import clipped, head_gradients, weighted_gradient
from fedmtl.balancing.network import Pullback, TaskNetwork
from fedmtl.balancing.options import HeadWeight, NTKExponent, WeightBound, weight_bound
from fedmtl.balancing.weights import balanced_weights, few_weights, head_chunk_norms, representation_sizes
from fedmtl.components import Param


class NTKMTLSR(Balancer):
    """NTKMTL-SR: weights from the kernels of the shared representation; costs about as much as equal weights.

    Examples
    --------
    With p = 0 the weights are equal, with 1/2 the weighted gradients are equally long, with 1 all losses fall alike:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.ntkmtl_sr import NTKMTLSR
    >>> gradients = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> for p in (0.0, 0.5, 1.0):
    ...     direction = balance_gradients(NTKMTLSR(exponent=p), gradients).shared[0]
    ...     p, direction.round(decimals=2), (gradients @ direction).round(decimals=2)
    (0.0, tensor([3., 1.]), tensor([9., 1.]))
    (0.5, tensor([2.2400, 2.2400]), tensor([6.7100, 2.2400]))
    (1.0, tensor([1.6700, 5.0000]), tensor([5., 5.]))
    """

    def __init__(
        self,
        *,
        exponent: NTKExponent = 0.5,
        chunks: Annotated[int, Param("n, parts that a batch is cut into", ge=1, source="paper")] = 4,
        statistic: Annotated[Literal["top_eig", "trace"], Param("size of a kernel", source="paper")] = "top_eig",
        head_weight: Annotated[HeadWeight, Param("whether omega scales the heads", source="paper")] = "weighted",
        clip: Annotated[float, Param("upper bound of the shared gradient's L2 norm; 0 for none", ge=0)] = 0.0,
        w_max: WeightBound = None,
        eps: Annotated[float, Param("added to lambda", gt=0)] = 1e-12,
    ) -> None:
        self.exponent = exponent
        self.chunks = chunks
        self.statistic = statistic
        self.head_weight = head_weight
        self.clip = clip
        self.w_max = weight_bound(w_max, exponent)
        self.eps = eps

    def gradients(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step, in one pass."""
        representation, pullback = network.represent(inputs)
        losses, slopes = network.losses_and_slopes(representation, targets)
        if representation.is_cpu:
            step = self._in_numbers(network, representation, pullback, losses, slopes, task_weights)
            if step is not None:
                return step
        gradients = network.task_gradients(slopes)
        lam = representation_sizes(gradients, self.chunks, self.statistic)
        omega = balanced_weights(lam, self.exponent, self.w_max, self.eps)
        if task_weights is not None:
            omega = omega * omega.new_tensor(task_weights)
        shared = pullback(weighted_gradient(gradients, omega, lam))
        own = head_gradients(network, network.head_gradients(representation, slopes), omega, self.head_weight)
        return StepGradients(clipped(shared, self.clip), own, losses, omega, lam)

    def _in_numbers(
        self,
        network: TaskNetwork,
        representation: Tensor,
        pullback: Pullback,
        losses: Tensor,
        slopes: Sequence[Tensor],
        task_weights: Sequence[float] | None,
    ) -> StepGradients | None:
        """The same by few operators and plain numbers, for steps of microseconds; None if something is not finite."""
        stacked, weights = network.stacked(slopes)
        norms = head_chunk_norms(stacked, weights, network.outputs, self.chunks)
        if not math.isfinite(sum(map(sum, norms))):
            return None
        lam = [sum(of) / len(of) if self.statistic == "trace" else max(of) for of in zip(*norms, strict=True)]
        omega = few_weights(lam, self.exponent, self.w_max, self.eps)
        if task_weights is not None:
            omega = [weight * factor for weight, factor in zip(omega, task_weights, strict=True)]
        columns = [weight for weight, count in zip(omega, network.outputs, strict=True) for _ in range(count)]
        numbers = torch.tensor([*omega, *lam, *columns], dtype=losses.dtype)
        weights_of, kernel_sizes, factors = torch.split_with_sizes(numbers, (len(omega), len(lam), len(columns)))
        weighed = stacked * factors
        shared = pullback(weighed @ weights)
        own = network.stacked_head_gradients(representation, weighed if self.head_weight == "weighted" else stacked)
        return StepGradients(clipped(shared, self.clip), network.by_head(own), losses, weights_of, kernel_sizes)
