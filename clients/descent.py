"""Stochastic gradient descent, and the views of a flat vector that it goes by."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import TrainSettings


class Descent:
    """Stochastic gradient descent in place, with fused operations over the list of parameters.

    ``w -= eta * v``, with ``v = m v + g`` (heavy ball, empty at the start) and
    ``g = clip(gradient + mu (w - w_base)) + decay * w + correction``. The clip bounds the L2 norm of all parameters
    together (``clip_by = "model"``), or of the backbone's and of each head's by themselves (``"part"``).

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

    def step(self, shared: Sequence[Tensor], heads: Sequence[Sequence[Tensor]]) -> None:
        """One step along the negative gradient: the backbone's, and that of each head."""
        settings = self._settings
        rate = settings.learning_rate
        gradients = [*shared, *itertools.chain.from_iterable(heads)]
        if self._base is not None:
            drift = torch._foreach_sub(self._values, self._base)
            gradients = list(torch._foreach_add(gradients, drift, alpha=settings.proximal))
        if settings.clip > 0:
            parts = (gradients,) if settings.clip_by == "model" else (shared, *heads)
            gradients = _clipped(gradients, [len(part) for part in parts if part], settings.clip)
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


def _clipped(gradients: list[Tensor], parts: Sequence[int], bound: float) -> list[Tensor]:
    """The gradients, those of each part scaled down so that their common L2 norm is at most `bound`.

    Parameters
    ----------
    gradients
        Part after part.
    parts
        How many of them each part has, at least 1.
    bound
        Above 0.
    """
    # One number for each tensor, and of these one for each part, so that the device is waited for once.
    remaining = iter(torch._foreach_norm(gradients))
    norms = [torch.stack(list(itertools.islice(remaining, size))) for size in parts]
    lengths = torch.stack([torch.linalg.vector_norm(of_part) for of_part in norms])
    # A NaN norm compares false: the step is taken, the loss shows it, and the update is rejected.
    factors = [bound / length if length > bound else 1.0 for length in lengths.tolist()]
    if all(factor == 1.0 for factor in factors):
        return gradients
    return list(torch._foreach_mul(gradients, [f for f, size in zip(factors, parts, strict=True) for _ in range(size)]))


def views_of(vector: Tensor, layout: ParameterLayout, tasks: tuple[int, ...]) -> list[Tensor]:
    """Views of a flat vector in the order of a client's values: the backbone, then its tasks' heads."""
    slices = [layout.shared, *(layout.heads[task] for task in tasks)]
    return [
        vector[entry.start : entry.stop].view(entry.shape)
        for part in slices
        for entry in layout.entries
        if part.start <= entry.start and entry.stop <= part.stop
    ]
