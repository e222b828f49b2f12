"""SDMGrad, stochastic direction-oriented multi-objective gradient descent.

Paper: "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms" (arXiv 2305.18409). With
the Jacobians J_1, J_2, J_3 of three independent batches, and g_0 the mean gradient of the third,

    A = J_1 J_2^T / mean(sqrt(diag))^2,    20 times: w <- proj(w - rate * velocity of A (w + lam / K))
    d = (J_3^T w + lam g_0) / (1 + lam)

The three batches are thirds of the step's batch, in the order in which it was drawn; heads follow the whole batch.
Three buffers, where the authors' code writes all three into one; it multiplies d by the number of tasks
(`times_tasks`). A short batch of one or two examples, as it ends an
epoch, serves as all three; a batch size below three is refused. w starts anew in every job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.gradients import clipped, head_gradients, weighted_gradient
from fedmtl.balancing.jacobian_method import jacobian
from fedmtl.balancing.network import HeadPass, Pullback, TaskNetwork
from fedmtl.balancing.options import AuthorsHeads, Clip, TimesTasks
from fedmtl.balancing.passes import Passes
from fedmtl.balancing.several import SeveralTasks
from fedmtl.components import Param


class SDMGrad(SeveralTasks):
    """Towards the shortest vector in the gradients' hull, held near the mean gradient; unbiased by three batches.

    Examples
    --------
    A strong pull towards the mean gradient, with which the second loss would rise, and the default:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.sdmgrad import SDMGrad
    >>> gradients = torch.tensor([[10.0, 0.0], [-0.6, 0.8]])
    >>> for lam in (10.0, 0.3):
    ...     lam, (gradients @ balance_gradients(SDMGrad(lam=lam), gradients).shared[0]).round(decimals=1)
    (10.0, tensor([42.2000, -2.2000]))
    (0.3, tensor([6.2000, 0.2000]))
    """

    least_batch = 3

    def __init__(
        self,
        *,
        lam: Annotated[float, Param("pull towards the mean gradient", ge=0, source="authors' code")] = 0.3,
        rate: Annotated[float, Param("step size of w", gt=0, source="authors' code")] = 10.0,
        momentum: Annotated[float, Param("momentum of w", ge=0, lt=1, source="authors' code")] = 0.5,
        iterations: Annotated[int, Param("steps of w in a step", ge=1, source="authors' code")] = 20,
        head_weight: AuthorsHeads = "unweighted",
        times_tasks: TimesTasks = False,
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.times_tasks = times_tasks
        self._descend = torchjd.SDMGrad(lam, rate, momentum, iterations)

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the weights w of earlier jobs."""
        self._descend.reset()

    def balance_passes(self, calls: int, tasks: int) -> Passes:
        """Three thirds of a batch: for two of them a backward pass for each task, for the last one."""
        return calls * Passes(forward=1, backward=(2 * tasks + 1) / 3, heads=3)

    def balance(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step: two backward passes for each task and one more, on a third of the batch each."""
        parts = _thirds(len(inputs))
        passes: list[tuple[HeadPass, Pullback]] = []
        for part in parts:
            representation, pullback = network.represent(inputs[part])
            passes.append((network.head_pass(representation, [target[part] for target in targets]), pullback))
        slopes = [network.task_gradients(heads.slopes) for heads, _ in passes]
        first, second = (jacobian(network, passes[j][1], slopes[j]) for j in (0, 1))
        shares = [(part.stop - part.start) / sum(p.stop - p.start for p in parts) for part in parts]
        losses = torch.stack([share * heads.losses for share, (heads, _) in zip(shares, passes, strict=True)]).sum(0)
        weights = self._weights(first, second, losses)
        if task_weights is not None:
            weights = weights * weights.new_tensor(task_weights)
        sound = losses + slopes[2].square().sum((1, 2))
        shared = passes[2][1](weighted_gradient(slopes[2], weights, sound))
        own = _weighted_mean([heads.gradients for heads, _ in passes], shares)
        heads_of = head_gradients(network, own, weights, self.head_weight)
        return StepGradients(clipped(shared, self.clip), heads_of, losses, weights)

    def _weights(self, first: Tensor, second: Tensor, losses: Tensor) -> Tensor:
        """Of the tasks that are finite and have a gradient; 1 without a gradient, 0 if it is not finite."""
        product = (first @ second.T).double().cpu()
        sizes = (first.square().sum(1) * second.square().sum(1)).double().cpu()
        weights = (sizes + losses.cpu()).isfinite().double()
        live = (weights > 0) & (sizes > 0)
        if bool(live.any()):
            index = live.nonzero()[:, 0]
            weights[index] = self._descend(product[index][:, index]) * (len(index) if self.times_tasks else 1)
        return weights.to(losses)


def _thirds(batch: int) -> list[slice]:
    """Three parts whose sizes differ by at most one; three times the whole where there are fewer examples."""
    if batch < SDMGrad.least_batch:
        return [slice(0, batch)] * 3
    stops = [0, batch // 3 + (batch % 3 > 0), 2 * (batch // 3) + min(batch % 3, 2), batch]
    return [slice(stops[j], stops[j + 1]) for j in range(3)]


def _weighted_mean(parts: Sequence[Sequence[Tensor]], shares: Sequence[float]) -> list[Tensor]:
    """``sum_j share_j part_j`` of lists of tensors."""
    weights = torch.tensor(shares)
    return [torch.tensordot(weights.to(values[0]), torch.stack(values), 1) for values in zip(*parts, strict=True)]
