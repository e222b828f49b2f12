"""Fitting linear heads to a representation: damped Newton steps, the same for losses of any scale.

A head V = [W, b] of one task reads z' = (z, 1). With n examples, slopes s = dl/do of the task's mean loss l in the
head's outputs, shape [n, outputs], and Z' of shape [n, width + 1]

    dl/dV = s^T Z',    d2l/dV2 <= h (G x I),    G = Z'^T Z' / n,

with h an upper bound of the second derivative of the loss in its outputs, so that a step

    V <- V - (1/h) s^T Z' (G + rho I)^-1,    rho = damping tr(G) / (width + 1)

never raises l, needs no rate, and is the same if the loss is multiplied by c. Directions in which the representation
hardly varies (eigenvalues of G below rho) hardly move: what a client has little data on stays as it was sent. The
inverse depends on the representation alone, so all heads share one factorisation.

With loss factor c: h = 2c for the squared error, c/4 for the binary and c/2 for the softmax cross-entropy (D. Boehning,
"Multinomial logistic regression algorithm", 1992). The absolute error ``c |r|`` has no such bound; h is that of the
parabola ``c r^2 / (2 m) + c m / 2`` that touches it at the mean residual m = l/c, so h = c/m = c^2/l.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmtl.balancing.network import TaskNetwork
from fedmtl.tasks import Task

_REACH = {"cross_entropy": 2.0, "binary_cross_entropy": 4.0, "squared_error": 0.5}


def reach(task: Task, loss: float) -> float:
    """1/h: how far a unit slope reaches; 0 where the loss is flat.

    Parameters
    ----------
    task
        The task.
    loss
        Its mean loss, which only the absolute error asks for.
    """
    c = task.loss_factor
    if c == 0.0:
        return 0.0
    return loss / c**2 if task.loss == "absolute_error" else _REACH[str(task.loss)] / c


class HeadMetric:
    """``(G + rho I)^-1`` of a representation.

    Parameters
    ----------
    representation
        Shape [n, width].
    damping
        rho relative to G's mean eigenvalue; above 0.

    Attributes
    ----------
    sound
        Whether the representation was finite; if not, all steps are 0.

    Examples
    --------
    With little damping, one step from a head of zeros solves a least-squares problem, here ``y = 2 z + 1``:

    >>> import torch
    >>> from fedmtl.balancing.heads import HeadMetric, reach
    >>> from fedmtl.tasks import Task
    >>> z = torch.tensor([[0.0], [1.0], [2.0]])
    >>> loss, slope = Task("y", "regression").loss_and_slope(torch.zeros(3, 1), 2 * z[:, 0] + 1)
    >>> metric = HeadMetric(z, damping=1e-4)
    >>> step = metric.step([slope.T @ z, slope.sum(0)], reach(Task("y", "regression"), loss.item()))
    >>> [-part.round(decimals=2) for part in step]
    [tensor([[2.]]), tensor([1.])]
    """

    def __init__(self, representation: Tensor, damping: float) -> None:
        ones = representation.new_ones(len(representation), 1)
        z = torch.cat([representation, ones], 1)
        second = z.t() @ z / len(z)
        second.diagonal().add_(damping * second.diagonal().mean())
        # Unlike `cholesky`, this one does not raise where numbers are not finite.
        factor, fault = torch.linalg.cholesky_ex(second)
        self.sound = bool(fault.item() == 0 and factor.isfinite().all())
        self._inverse = torch.cholesky_inverse(factor) if self.sound else torch.zeros_like(second)

    def step(self, gradient: Sequence[Tensor], reach: float) -> list[Tensor]:
        """What to subtract from a head's weight and bias, given the gradients of these."""
        weight, bias = gradient
        if not self.sound:
            return [torch.zeros_like(weight), torch.zeros_like(bias)]
        found = torch.cat([weight, bias.unsqueeze(1)], 1) @ self._inverse
        return [found[:, :-1].mul_(reach), found[:, -1].mul_(reach)]


def align_heads(
    network: TaskNetwork, representation: Tensor, targets: Sequence[Tensor], metric: HeadMetric, steps: int
) -> None:
    """Move the network's heads by some Newton steps on a representation that stays.

    A step that does not leave a task's loss as low as it was, or finite, is taken back, and that head moves no more;
    the other heads are not affected.

    Parameters
    ----------
    network
        Its heads' values are written to.
    representation
        Shape [n, width].
    targets
        For each task its targets, shape [n].
    metric
        Of that representation.
    steps
        How many.
    """
    first = len(network.shared)
    heads = [network.values[k : k + 2] for k in range(first, len(network.values), 2)]
    means, slopes = network.losses_and_slopes(representation, targets)
    losses = means.tolist()
    moving = [task for task, loss in enumerate(losses) if metric.sound and math.isfinite(loss)]
    for _ in range(steps):
        if not moving:
            return
        before = [value.clone() for value in network.values[first:]]
        gradients = network.head_gradients(representation, slopes)
        for task in moving:
            step = metric.step(gradients[2 * task : 2 * task + 2], reach(network.tasks[task], losses[task]))
            torch._foreach_sub_(heads[task], step)
        means, slopes = network.losses_and_slopes(representation, targets)
        after = means.tolist()
        for task in [task for task in moving if not after[task] <= losses[task]]:
            torch._foreach_copy_(heads[task], before[2 * task : 2 * task + 2])
            moving.remove(task)
        losses = after
