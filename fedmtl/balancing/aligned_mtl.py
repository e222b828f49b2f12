"""Aligned-MTL, independent component alignment.

Paper: "Independent Component Alignment for Multi-Task Learning" (arXiv 2305.19000). With M = V diag(lambda) V^T and
equal preferences,

    w = sqrt(lambda_s) V diag(lambda^(-1/2)) V^T (1/K, ..., 1/K),    lambda_s the least eigenvalue that is not 0

so that the gradients' principal components all have the length of the shortest. The authors' code has two further
scales: the median and the mean eigenvalue. It adds the aligned gradients up (`times_tasks`), and here d is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor

from fedmtl.balancing import torchjd_adapter as torchjd
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.options import AuthorsHeads, Clip, TimesTasks
from fedmtl.components import Param


class AlignedMTL(GramWeighting):
    """The mean of gradients whose principal components were made equally long.

    Examples
    --------
    Orthogonal gradients are their own principal components, and become as long as the shortest:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.aligned_mtl import AlignedMTL
    >>> step = balance_gradients(AlignedMTL(), [[10.0, 0.0], [0.0, 1.0]])
    >>> step.weights, step.shared[0]
    (tensor([0.0500, 0.5000]), tensor([0.5000, 0.5000]))
    """

    signed = True

    def __init__(
        self,
        *,
        scale: Annotated[
            Literal["min", "median", "rmse"],
            Param("whose length: least, median or mean eigenvalue's", source="paper"),
        ] = "min",
        head_weight: AuthorsHeads = "unweighted",
        times_tasks: TimesTasks = False,
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip, times_tasks)
        self._align = torchjd.aligned_mtl(scale)

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """``B (1/k, ..., 1/k)``, shape [k]."""
        return self._align(gram)
