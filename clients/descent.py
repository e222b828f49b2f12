"""Stochastic gradient descent, and the views of a flat vector that it goes by."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import TrainSettings


class Descent:
    """Stochastic gradient descent in place, with fused operations over the list of parameters.

    ``w -= eta * v``, with ``v = m v + g`` (heavy ball, empty at the start) and
    ``g = clip(gradient + mu (w - w_base)) + decay * w + correction``.

    Parameters
    ----------
    values
        w, tensors without a claim to gradients; they are written to.
    settings
        Rate, momentum, clip, mu and decay.
    base, correction
        Of the same shapes; None for no proximal term and no correction.
    """

    def __init__(
        self,
        values: list[Tensor],
        settings: TrainSettings,
        base: list[Tensor] | None = None,
        correction: list[Tensor] | None = None,
    ) -> None:
        self._values = values
        self._settings = settings
        self._base = base if settings.proximal else None
        self._correction = correction
        self._velocity: list[Tensor] | None = None

    def step(self, gradients: list[Tensor]) -> None:
        """One step along the negative gradient."""
        settings = self._settings
        rate = settings.learning_rate
        if self._base is not None:
            drift = torch._foreach_sub(self._values, self._base)
            gradients = list(torch._foreach_add(gradients, drift, alpha=settings.proximal))
        if settings.clip > 0:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            # A NaN norm compares false: the step is taken, the loss shows it, and the update is rejected.
            if (length := norm.item()) > settings.clip:
                gradients = list(torch._foreach_mul(gradients, settings.clip / length))
        if settings.weight_decay:
            gradients = list(torch._foreach_add(gradients, self._values, alpha=settings.weight_decay))
        if self._correction is not None:
            gradients = list(torch._foreach_add(gradients, self._correction))
        if settings.momentum:
            if self._velocity is None:
                self._velocity = [gradient.clone() for gradient in gradients]
            else:
                torch._foreach_mul_(self._velocity, settings.momentum)
                torch._foreach_add_(self._velocity, gradients)
            gradients = self._velocity
        torch._foreach_add_(self._values, gradients, alpha=-rate)


def views_of(vector: Tensor, layout: ParameterLayout, tasks: tuple[int, ...]) -> list[Tensor]:
    """Views of a flat vector in the order of a client's values: the backbone, then its tasks' heads."""
    slices = [layout.shared, *(layout.heads[task] for task in tasks)]
    return [
        vector[entry.start : entry.stop].view(entry.shape)
        for part in slices
        for entry in layout.entries
        if part.start <= entry.start and entry.stop <= part.stop
    ]
