"""GradNorm, gradient normalisation.

Paper: "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks" (arXiv 1711.02257).
With l_i(0) the loss of the job's first step,

    r_i = (l_i / l_i(0)) / mean_j (l_j / l_j(0)),    n_i = ||g_i|| / mean_j ||g_j||,    w = K softmax(s)
    s descends sum_i | w_i n_i - c_i |,    c_i = mean_j (w_j n_j) r_i^a held constant

by Adam. Differences: the paper has the norms ||g_i|| in the place of n_i. Divided by their mean of the same step, they
pull at the weights alike whatever the scale of the losses, and in late steps of a job as in early ones, though
gradients shrink; what is least is the same. The paper learns w itself and brings it back to the sum K after each step;
K softmax(s) keeps it positive, too. Norms are those of the whole backbone, not of its last layer; s and l(0) start anew
in every job; a task that is left out of a step keeps its s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import HEADS, Clip, HeadWeight
from fedmtl.components import Param

_LEAST = 1e-8  # a loss that starts at 0 has no pace


class GradNorm(GramWeighting):
    """Learned weights that give slow tasks the longer gradients; they start at 1 in every job.

    Examples
    --------
    While the losses fall at one pace, the weighted gradients become equally long, here ``w_1 * 10 = w_2 * 1``:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.gradnorm import GradNorm
    >>> balancer = GradNorm()
    >>> steps = [balance_gradients(balancer, [[10.0, 0.0], [0.0, 1.0]]) for _ in range(100)]
    >>> steps[0].weights, steps[-1].weights.round(decimals=1)
    (tensor([1., 1.]), tensor([0.2000, 1.8000]))
    """

    def __init__(
        self,
        *,
        exponent: Annotated[float, Param("a, how much slow tasks are favoured", ge=0, source="paper")] = 1.5,
        rate: Annotated[float, Param("learning rate of s, by Adam", gt=0)] = 0.025,
        head_weight: Annotated[HeadWeight, HEADS.by("paper")] = "weighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.exponent = exponent
        self.rate = rate
        self._first: dict[int, float] = {}
        self._logits: dict[int, Tensor] = {}
        self._optimizers: dict[int, torch.optim.Adam] = {}

    def start_job(self, generator: torch.Generator) -> None:
        """Forget s and the first losses."""
        self._first, self._logits, self._optimizers = {}, {}, {}

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """``K softmax(s)``, shape [k]; then s takes a step."""
        for task, loss in zip(tasks, losses.clamp_min(_LEAST).tolist(), strict=True):
            if task not in self._first:
                self._first[task] = loss
                self._logits[task] = torch.zeros((), dtype=torch.float64, requires_grad=True)
                self._optimizers[task] = torch.optim.Adam([self._logits[task]], lr=self.rate)
        pace = losses.clamp_min(_LEAST) / losses.new_tensor([self._first[task] for task in tasks])
        norms = gram.diagonal().sqrt()
        with torch.enable_grad():
            weights = len(tasks) * torch.stack([self._logits[task] for task in tasks]).softmax(0)
            lengths = weights * (norms / norms.mean())
            aim = lengths.detach().mean() * (pace / pace.mean()) ** self.exponent
            logits = [self._logits[task] for task in tasks]
            slopes = torch.autograd.grad((lengths - aim).abs().sum(), logits)
        for task, logit, slope in zip(tasks, logits, slopes, strict=True):
            logit.grad = slope
            self._optimizers[task].step()
        return weights.detach()
