"""DB-MTL, dual balancing.

Paper: "Dual-Balancing for Multi-Task Learning" (arXiv 2308.12029). On the gradients of the losses' logarithms, averaged
over steps and brought to the length of the longest,

    G_i = g_i / (l_i + 1e-8),    q_i <- b_t q_i + (1 - b_t) G_i,    b_t = b / t^sigma
    d = sum_i (max_j ||q_j|| / ||q_i||) q_i

Differences: q is corrected for its start at zero, as the first steps of a job would be nearly lost without (every job
starts anew). A task that is left out of a step keeps its q. Needs the whole Jacobian twice, [K, P].
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing.jacobian_method import JacobianMethod
from fedmtl.balancing.options import Clip, OwnHeads
from fedmtl.components import Param

_LEAST = 1e-8  # of the paper: added to a loss before the logarithm


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
    """

    def __init__(
        self,
        *,
        beta: Annotated[float, Param("b, share of the past in the average", ge=0, lt=1, source="paper")] = 0.9,
        sigma: Annotated[float, Param("how fast that share falls with t", ge=0, source="paper")] = 0.0,
        head_weight: OwnHeads = "unweighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
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
        logs = 1 / (losses.clamp_min(0) + _LEAST)
        self._steps += sound
        share = torch.where(sound, self.beta / self._steps.clamp_min(1) ** self.sigma, 1.0)
        self._average = share.unsqueeze(1) * self._average + ((1 - share) * logs).unsqueeze(1) * rows
        self._left = self._left * share
        corrected = (1 - self._left).clamp_min(torch.finfo(rows.dtype).tiny)
        norms = self._average.norm(dim=1) / corrected
        lengthening = torch.where(sound & (norms > 0), norms.max() / norms, 0.0) / corrected * factors
        return lengthening @ self._average, lengthening * (1 - share) * logs
