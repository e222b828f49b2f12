"""DWA, dynamic weight average.

Paper: "End-to-End Multi-Task Learning with Attention" (arXiv 1803.10704). With L_i(t) the mean loss of window t,

    r_i = L_i(t - 1) / L_i(t - 2),    w = K softmax(r / T)

Difference: the paper's window is an epoch; a client's job has few of them, so here it is a number of steps. A job
begins without a history: its first two windows have equal weights.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.loss_weighting import LossWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip
from fedmtl.components import Param

_LEAST = 1e-12  # a mean loss of 0 would make the next ratio undefined


class DWA(LossWeighting):
    """Weights by how slowly each loss fell lately; a job's first two windows have equal weights.

    Examples
    --------
    The first loss fell by a tenth, the second by half; the slower one counts more:

    >>> import torch
    >>> from fedmtl.balancing.dwa import DWA
    >>> balancer = DWA(window=1)
    >>> for losses in ([1.0, 1.0], [0.9, 0.5], [0.8, 0.4]):
    ...     balancer.weigh(torch.tensor(losses))
    tensor([1., 1.])
    tensor([1., 1.])
    tensor([1.0997, 0.9003])
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Param("T; the larger, the more equal the weights", gt=0, source="paper")] = 2.0,
        window: Annotated[int, Param("steps whose losses are averaged", ge=1)] = 5,
        head_weight: AuthorsHeads = "weighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.window = window
        self._average = torchjd.dwa(temperature)
        self._steps = 0

    def start_job(self, generator: torch.Generator) -> None:
        """Forget the losses of the last job."""
        self._average.scalarizer.reset()
        self._steps = 0

    def weigh(self, losses: Tensor) -> Tensor:
        """``K softmax(r / T)``, shape [tasks]."""
        weights = self._average(losses.clamp_min(_LEAST))
        self._steps += 1
        if self._steps % self.window == 0:
            self._average.scalarizer.step()
        return weights
