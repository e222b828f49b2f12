"""GradDrop, gradient sign dropout.

Paper: "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout" (arXiv 2010.06808), algorithm 1.
For every coordinate, with U uniform on [0, 1],

    P = (1 + sum_i g_i / sum_i |g_i|) / 2,    keep the positive parts if P > U, the negative parts if P < U

and of what is not kept the share `leak`.

Differences: signs are taken of the backbone's parameters, not of its activations. The server's factors scale the
gradients before signs are weighed, as there are no weights that they could scale. Needs the whole Jacobian, [K, P].
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.jacobian_method import JacobianMethod
from fedmtl.balancing.options import Clip, OwnHeads
from fedmtl.components import Param


class GradDrop(JacobianMethod):
    """In every coordinate only the gradients of one, randomly picked sign.

    Examples
    --------
    The tasks agree on the first coordinate; of the second, 2 or -3 is kept:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.graddrop import GradDrop
    >>> balancer = GradDrop()
    >>> steps = [balance_gradients(balancer, [[1.0, 2.0], [1.0, -3.0]]) for _ in range(50)]
    >>> sorted({tuple(step.shared[0].tolist()) for step in steps})
    [(2.0, -3.0), (2.0, 2.0)]
    """

    def __init__(
        self,
        *,
        leak: Annotated[float, Param("share of the dropped parts that is kept", ge=0, le=1, source="paper")] = 0.0,
        head_weight: OwnHeads = "unweighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self._drop = torchjd.graddrop(leak)
        self._generator = torch.Generator()

    def start_job(self, generator: torch.Generator) -> None:
        """Draw from this job's generator."""
        self._generator = generator

    def combine(self, rows: Tensor, losses: Tensor, sound: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The kept parts' sum; the weights are the factors."""
        return self._drop(rows * factors.unsqueeze(1), self._generator), factors * sound
