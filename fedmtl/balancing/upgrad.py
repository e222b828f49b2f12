"""UPGrad, unconflicting projection of gradients.

Paper: "Jacobian Descent for Multi-Objective Optimization" (arXiv 2406.16232). The dual cone holds the vectors that no
gradient conflicts with:

    d = mean_i of the projection of g_i on {x : g_j . x >= 0 for all j}

by a quadratic programme for each task, on the K by K Gram matrix.

Difference: the programmes are set up in unit gradients, where `eps` weighs the same beside every task. The authors'
code, torchjd, adds it to the Gram matrix over its trace (``scale = "gram"``): conflicts of a task whose gradient is a
hundred times shorter than the longest then hardly count, and gradients whose squared norms sum to less than 1e-4 are
averaged as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip
from fedmtl.balancing.torchjd_adapter import UPGradScale
from fedmtl.components import Param


class UPGrad(GramWeighting):
    """The mean of the gradients' projections on the cone without conflict.

    Examples
    --------
    Along the mean of these gradients the second loss would rise; along this direction none does:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.upgrad import UPGrad
    >>> gradients = torch.tensor([[10.0, 0.0], [-0.6, 0.8]])
    >>> gradients @ gradients.mean(0)
    tensor([47.0000, -2.5000])
    >>> (gradients @ balance_gradients(UPGrad(), gradients).shared[0]).round(decimals=1)
    tensor([32.0000,  0.3000])
    """

    def __init__(
        self,
        *,
        eps: Annotated[
            float, Param("added to the diagonal of what `scale` names, over its trace", gt=0, source="authors' code")
        ] = 1e-4,
        scale: Annotated[
            UPGradScale,
            Param("whether the programmes are in unit gradients or in gradients; in the authors' code: gram"),
        ] = "cosines",
        head_weight: AuthorsHeads = "unweighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self._project = torchjd.upgrad(eps, scale)

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Sums of the projections' coefficients, shape [k]."""
        return self._project(gram)
