"""Stochastic gradient descent on the views of one flat vector."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.adaptation.base import Plan
from fedmtl.balancing.network import TaskNetwork
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import TrainSettings


class Descent:
    """Stochastic gradient descent in place, with fused operations over the list of parameters.

    ``w -= eta * v``, with ``v = m v + g`` (heavy ball, empty at the start) and
    ``g = clip(gradient + mu (w - w_base)) + decay * w + correction``.
    """

    def __init__(
        self, network: TaskNetwork, plan: Plan, layout: ParameterLayout, tasks: tuple[int, ...], base: Tensor
    ) -> None:
        # Detached: the same memory, which is written to without autograd's looking on.
        self._parameters = network.values
        self._settings: TrainSettings = plan.settings
        self._velocity: list[Tensor] | None = None
        self._base = _views_of(base, layout, tasks) if plan.settings.proximal else None
        self._correction = (
            None if plan.correction is None else _views_of(plan.correction.to(base.device), layout, tasks)
        )

    def step(self, gradients: list[Tensor]) -> None:
        """One step along the negative gradient."""
        settings = self._settings
        rate = settings.learning_rate
        if self._base is not None:
            drift = torch._foreach_sub(self._parameters, self._base)
            gradients = list(torch._foreach_add(gradients, drift, alpha=settings.proximal))
        if settings.clip > 0:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            # A NaN norm compares false: the step is taken, the loss shows it, and the update is rejected.
            if (length := norm.item()) > settings.clip:
                gradients = list(torch._foreach_mul(gradients, settings.clip / length))
        if settings.weight_decay:
            gradients = list(torch._foreach_add(gradients, self._parameters, alpha=settings.weight_decay))
        if self._correction is not None:
            gradients = list(torch._foreach_add(gradients, self._correction))
        if settings.momentum:
            if self._velocity is None:
                self._velocity = [gradient.clone() for gradient in gradients]
            else:
                torch._foreach_mul_(self._velocity, settings.momentum)
                torch._foreach_add_(self._velocity, gradients)
            gradients = self._velocity
        torch._foreach_add_(self._parameters, gradients, alpha=-rate)


def _views_of(vector: Tensor, layout: ParameterLayout, tasks: tuple[int, ...]) -> list[Tensor]:
    """Views of a flat vector in the order of the trainer's parameters: the backbone, then the given tasks' heads."""
    slices = [layout.shared, *(layout.heads[task] for task in tasks)]
    return [
        vector[entry.start : entry.stop].view(entry.shape)
        for part in slices
        for entry in layout.entries
        if part.start <= entry.start and entry.stop <= part.stop
    ]
