"""IMTL-G, the gradient balance of impartial multi-task learning.

Paper: "Towards Impartial Multi-Task Learning" (ICLR 2021): d has the same projection on every unit gradient, and the
weights sum to 1,

    v = M^+ sqrt(diag M),    w = v / sum v,    d = sum_i w_i g_i

Weights may be negative. Where they would sum to nothing no such direction exists, and d is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import Clip, OwnHeads


class IMTLG(GramWeighting):
    """Equal projections of the direction on all unit gradients.

    Examples
    --------
    The direction goes equally far along a gradient of length 5 and one of length 1:

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.imtl_g import IMTLG
    >>> gradients = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    >>> step = balance_gradients(IMTLG(), gradients)
    >>> step.weights
    tensor([0.1667, 0.8333])
    >>> gradients @ step.shared[0] / gradients.norm(dim=1)
    tensor([1.3333, 1.3333])
    """

    signed = True

    def __init__(self, *, head_weight: OwnHeads = "unweighted", clip: Clip = 0.0) -> None:
        super().__init__(head_weight, clip)
        self._solve = torchjd.imtl_g()

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Weights with sum 1, shape [k]."""
        return self._solve(gram)
