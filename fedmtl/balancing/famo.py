"""FAMO, fast adaptive multitask optimization.

Paper: "FAMO: Fast Adaptive Multitask Optimization" (arXiv 2306.03792). With logits xi and lower bound b of the losses,

    z = softmax(xi),    c = 1 / sum_i z_i / (l_i - b),    L = c sum_i z_i log(l_i - b)

After the model's step the losses l' of the same batch show how much each task gained, and Adam moves xi along
``-(dz/dxi)^T (log(l - b) - log(l' - b))``.

A balancer gives gradients before the step and cannot see what follows it. So the next call begins with the last
batch: nothing but the step lies between, and one further forward pass gives l'. A job's last step teaches xi nothing,
and every job begins with equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.loss_weighting import LossWeighting
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.options import AuthorsHeads, Clip
from fedmtl.balancing.passes import PLAIN, Passes
from fedmtl.components import Param

_LEAST = 1e-8  # a loss at its bound has no logarithm


class FAMO(LossWeighting):
    """Weights that make all losses fall at one pace; one further forward pass a step.

    Examples
    --------
    The first loss falls by a tenth in every step and the second stands still, so z moves to the second:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.famo import FAMO
    >>> balancer = FAMO(rate=0.1)
    >>> for k in range(10):
    ...     step = balance_gradients(balancer, gradients=[[1.0, 0.0], [0.0, 1.0]], losses=[0.9**k, 1.0])
    >>> z = step.weights * step.losses
    >>> (z / z.sum()).round(decimals=2)
    tensor([0.1500, 0.8500])
    """

    def __init__(
        self,
        *,
        rate: Annotated[float, Param("learning rate of the logits, by Adam", gt=0, source="paper")] = 0.025,
        decay: Annotated[float, Param("weight decay of the logits", ge=0, source="paper")] = 1e-3,
        bound: Annotated[float, Param("b, below all losses, in their unit", source="paper")] = 0.0,
        head_weight: AuthorsHeads = "weighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        torchjd.require()
        self.rate = rate
        self.decay = decay
        self.bound = bound
        self._learned: torchjd.Scalarized | None = None
        self._last: tuple[Tensor, Sequence[Tensor]] | None = None

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the logits and the last batch."""
        self._learned = self._last = None

    def balance_passes(self, calls: int, tasks: int) -> Passes:
        """In each step but the first, the last batch once more; its heads give their gradients with the losses."""
        return calls * PLAIN + max(calls - 1, 0) * Passes(forward=1, heads=2)

    def balance(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step, in one pass, after the last batch's losses were taken again."""
        if self._learned is not None and self._last is not None:
            batch, expected = self._last
            gained = network.head_pass(network.represent(batch)[0], expected).losses.detach().cpu()
            self._learned.scalarizer.update(self._positive(torch.where(gained.isfinite(), gained, 1.0)))
        self._last = (inputs, targets)
        return super().balance(network, inputs, targets, task_weights)

    def weigh(self, losses: Tensor) -> Tensor:
        """``c z / (l - b)``, shape [tasks]."""
        if self._learned is None:
            self._learned = torchjd.famo(torch.full_like(losses, self.bound), self.rate, self.decay)
        return self._learned(self._positive(losses))

    def _positive(self, losses: Tensor) -> Tensor:
        return losses.clamp_min(self.bound + _LEAST)
