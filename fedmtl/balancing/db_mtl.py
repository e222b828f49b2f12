"""DB-MTL, dual balancing.

Paper: "Dual-Balancing for Multi-Task Learning" (arXiv 2308.12029). On the gradients of the losses' logarithms, averaged
over steps and brought to the length of the longest,

    G_i = g_i / (l_i + 1e-8),    q_i <- b_t q_i + (1 - b_t) G_i,    b_t = b / t^sigma
    d = sum_i (max_j ||q_j|| / ||q_i||) q_i

and every head follows the gradient of its own loss's logarithm. The authors' code is LibMTL's.

Differences: q is corrected for its start at zero, as the first steps of a job would be nearly lost without (every job
starts anew; ``bias_correction = false`` is as the authors have it). A task that is left out of a step keeps its q. A
client that owns a single task descends its loss, not the logarithm. Needs the whole Jacobian twice, [K, P].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.gradients import head_gradients
from fedmtl.balancing.jacobian_method import JacobianMethod
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.options import Clip
from fedmtl.components import Param

_LEAST = 1e-8  # of the paper: added to a loss before the logarithm

Heads = Literal["log", "unweighted", "weighted"]


class DBMTL(JacobianMethod):
    """Gradients of the losses' logarithms, averaged over steps and made equally long.

    Examples
    --------
    Divided by the losses, these gradients have the lengths 5 and 2; both are brought to 5:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.db_mtl import DBMTL
    >>> step = balance_gradients(DBMTL(), gradients=[[10.0, 0.0], [0.0, 1.0]], losses=[2.0, 0.5])
    >>> step.shared[0].round(decimals=2)
    tensor([5., 5.])

    Each head's own gradient, of which the bias's is 1 here, is divided by the loss as well:

    >>> [bias.round(decimals=2) for _, bias in step.heads]
    [tensor([0.5000]), tensor([2.])]
    """

    def __init__(
        self,
        *,
        beta: Annotated[float, Param("b, share of the past in the average", ge=0, lt=1, source="paper")] = 0.9,
        sigma: Annotated[float, Param("how fast that share falls with t", ge=0, source="paper")] = 0.0,
        bias_correction: Annotated[
            bool, Param("whether q is corrected for its start at zero; in the authors' code: false")
        ] = True,
        head_weight: Annotated[
            Heads | None,
            Param(
                "what heads follow: their log loss, their loss, or that times the weight; unset: log",
                source="authors' code",
            ),
        ] = None,
        clip: Clip = 0.0,
    ) -> None:
        self.log_heads = head_weight is None or head_weight == "log"
        super().__init__("weighted" if head_weight == "weighted" else "unweighted", clip)
        self.bias_correction = bias_correction
        self.beta = beta
        self.sigma = sigma
        self._average: Tensor | None = None
        self._steps: Tensor | None = None
        self._left: Tensor | None = None

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the averages of earlier jobs."""
        self._average = self._steps = self._left = None

    def combine(self, rows: Tensor, losses: Tensor, sound: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The direction, and the weights that the averages' newest gradients have in it."""
        if self._average is None or self._steps is None or self._left is None:
            self._average = torch.zeros_like(rows)
            self._steps = torch.zeros_like(losses)
            self._left = torch.ones_like(losses)  # share of the start in the average
        logs = _slopes(losses)
        self._steps += sound
        share = torch.where(sound, self.beta / self._steps.clamp_min(1) ** self.sigma, 1.0)
        self._average = share.unsqueeze(1) * self._average + ((1 - share) * logs).unsqueeze(1) * rows
        self._left = self._left * share
        corrected = torch.ones_like(self._left)
        if self.bias_correction:
            corrected = (1 - self._left).clamp_min(torch.finfo(rows.dtype).tiny)
        norms = self._average.norm(dim=1) / corrected
        lengthening = torch.where(sound & (norms > 0), norms.max() / norms, 0.0) / corrected * factors
        return lengthening @ self._average, lengthening * (1 - share) * logs

    def balance(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step; the heads' are of the losses' logarithms, too."""
        step = super().balance(network, inputs, targets, task_weights)
        if self.log_heads:
            own = [gradient for head in step.heads for gradient in head]
            step.heads = head_gradients(network, own, _slopes(step.losses), "weighted")
        return step


def _slopes(losses: Tensor) -> Tensor:
    """Derivatives of the losses' logarithms with respect to the losses, shape [tasks]."""
    return 1 / (losses.clamp_min(0) + _LEAST)
