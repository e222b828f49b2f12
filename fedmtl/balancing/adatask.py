"""AdaTask, task-aware adaptive learning rates.

Paper: "AdaTask: A Task-aware Adaptive Learning Rate Approach to Multi-task Learning" (arXiv 2211.15055), with Adam.
Each task has its own moments on the shared parameters,

    m_i <- b1 m_i + (1 - b1) g_i,    v_i <- b2 v_i + (1 - b2) g_i^2
    d = sum_i (m_i / (1 - b1^t)) / (sqrt(v_i / (1 - b2^t)) + eps)

Each head has Adam of its own. What comes out are Adam's steps for a learning rate of 1, so training.learning_rate
should be of Adam's size (1e-3), not of gradient descent's. Moments start anew in every job; a task that is left out of
a step keeps its own and takes no part in the step. Needs three times the whole Jacobian, [K, P]. A client that owns a
single task descends plainly, as with every balancer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.jacobian_method import JacobianMethod
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.options import Clip
from fedmtl.components import Param


class AdaTask(JacobianMethod):
    """Adam with moments for each task; heads have Adam, too.

    Examples
    --------
    In a job's first step every coordinate of every task counts alike, whatever its size:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.adatask import AdaTask
    >>> step = balance_gradients(AdaTask(), [[100.0, 1.0], [0.01, 2.0]])
    >>> step.shared[0].round(decimals=2)
    tensor([2., 2.])
    """

    def __init__(
        self,
        *,
        beta1: Annotated[float, Param("b1, of the first moments", ge=0, lt=1, source="paper")] = 0.9,
        beta2: Annotated[float, Param("b2, of the second moments", ge=0, lt=1, source="paper")] = 0.999,
        eps: Annotated[float, Param("added to the root of the second moments", gt=0, source="paper")] = 1e-8,
        clip: Clip = 0.0,
    ) -> None:
        super().__init__("unweighted", clip)
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self._moments: tuple[list[Tensor], list[Tensor]] | None = None
        self._shared: tuple[Tensor, Tensor] | None = None
        self._steps: Tensor | None = None

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the moments of earlier jobs."""
        self._moments = self._shared = self._steps = None

    def combine(self, rows: Tensor, losses: Tensor, sound: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the tasks' steps; the weights are the factors."""
        if self._shared is None or self._steps is None:
            self._shared = torch.zeros_like(rows), torch.zeros_like(rows)
            self._steps = torch.zeros_like(losses)
        self._steps = self._steps + sound
        first, second = self._shared
        live = sound.unsqueeze(1)
        first = torch.where(live, first.lerp(rows, 1 - self.beta1), first)
        second = torch.where(live, second.lerp(rows.square(), 1 - self.beta2), second)
        self._shared = first, second
        t = self._steps.clamp_min(1).unsqueeze(1)
        steps = (first / (1 - self.beta1**t)) / ((second / (1 - self.beta2**t)).sqrt() + self.eps)
        return (factors * sound) @ steps, factors * sound

    def balance(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step: Adam's steps, for the backbone and for each head."""
        step = super().balance(network, inputs, targets, task_weights)
        gradients = [gradient for head in step.heads for gradient in head]
        if self._moments is None:
            self._moments = [torch.zeros_like(g) for g in gradients], [torch.zeros_like(g) for g in gradients]
        assert self._steps is not None
        times = [t for t, head in zip(self._steps.tolist(), step.heads, strict=True) for _ in head]
        moved = []
        for gradient, first, second, t in zip(gradients, *self._moments, times, strict=True):
            if not bool(gradient.isfinite().all()):
                moved.append(gradient)  # the loss shows it, and the update is rejected
                continue
            first.lerp_(gradient, 1 - self.beta1)
            second.lerp_(gradient.square(), 1 - self.beta2)
            t = max(t, 1)
            moved.append((first / (1 - self.beta1**t)) / ((second / (1 - self.beta2**t)).sqrt() + self.eps))
        step.heads = network.by_head(moved)
        return step
