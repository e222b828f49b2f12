"""MoCo, multi-objective gradient correction.

Paper: "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Stochastic Approach" (arXiv
2210.12624). With a running estimate y_i of each gradient (rows of Y) and the projection on the simplex,

    y_i <- y_i - beta (y_i - g_i),    w <- proj(w - gamma Y Y^T w),    d = Y^T w

Differences: beta and gamma are constant. The authors' code multiplies d by the number of tasks (`times_tasks`).
Estimates and weights start anew in every job, at 0 and at 1/K; a task that is left out of a step keeps its estimate.
Needs the whole Jacobian twice, [K, P].
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.jacobian_method import JacobianMethod
from fedmtl.balancing.options import AuthorsHeads, Clip, TimesTasks
from fedmtl.components import Param


class MoCo(JacobianMethod):
    """Steps towards the shortest vector in the convex hull of gradients that are averaged over steps.

    Examples
    --------
    From equal weights towards MGDA's, which are 0.6 and 0.4 here:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.moco import MoCo
    >>> balancer = MoCo()
    >>> steps = [balance_gradients(balancer, [[1.0, 0.0], [-1.0, 1.0]]) for _ in range(30)]
    >>> steps[0].weights.round(decimals=2), steps[-1].weights.round(decimals=2)
    (tensor([0.5200, 0.4700]), tensor([0.5900, 0.4000]))
    """

    def __init__(
        self,
        *,
        beta: Annotated[
            float, Param("share of the newest gradient in the estimate", gt=0, le=1, source="authors' code")
        ] = 0.99,
        gamma: Annotated[float, Param("step size of w; acts on squared gradient norms", gt=0)] = 0.1,
        head_weight: AuthorsHeads = "unweighted",
        times_tasks: TimesTasks = False,
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip, times_tasks)
        self.beta = beta
        self._descend = torchjd.MoDo(gamma)
        self._estimate: Tensor | None = None

    def start_job(self, generator: torch.Generator) -> None:
        """Forget estimates and weights."""
        self._descend.reset()
        self._estimate = None

    def combine(self, rows: Tensor, losses: Tensor, sound: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """``Y^T w``, and the weights that the newest gradients have in it."""
        if self._estimate is None:
            self._estimate = torch.zeros_like(rows)
        change = self.beta * (rows - self._estimate)
        self._estimate = self._estimate + torch.where(sound.unsqueeze(1), change, 0.0)
        gram = (self._estimate @ self._estimate.T).double().cpu()
        weights = self._descend(gram).to(rows) * factors
        return weights @ self._estimate, self.beta * weights * sound
