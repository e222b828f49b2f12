"""MGDA, the multiple-gradient descent algorithm.

Paper: "Multi-Task Learning as Multi-Objective Optimization" (arXiv 1810.04650), algorithm 2:

    w = argmin over the simplex of ||sum_i w_i g_i||^2,    d = sum_i w_i g_i

on the K by K Gram matrix. Normalisation divides the gradients by ``||g_i||``, ``l_i`` or ``l_i ||g_i||`` before w is
sought; w then weighs the gradients as they are, as in the authors' code.

Differences: solved exactly (:mod:`fedmtl.balancing.least_norm`), where Frank and Wolfe's method, which the paper takes,
falls short once norms differ. Heads follow their own losses; the authors' are weighted (`head_weight`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from torch import Tensor

from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.least_norm import least_norm_weights
from fedmtl.balancing.options import Clip, HeadWeight
from fedmtl.components import Param

Normalisation = Literal["none", "l2", "loss", "loss+"]


class MGDA(GramWeighting):
    """The shortest vector in the convex hull of the gradients.

    Examples
    --------
    Two gradients in conflict: the direction has the same product with both, so both losses fall alike.

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.mgda import MGDA
    >>> gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    >>> step = balance_gradients(MGDA(), gradients)
    >>> step.weights, step.shared[0]
    (tensor([0.6000, 0.4000]), tensor([0.2000, 0.4000]))
    >>> gradients @ step.shared[0]
    tensor([0.2000, 0.2000])
    """

    def __init__(
        self,
        *,
        normalisation: Annotated[
            Normalisation, Param("what divides the gradients while w is sought", source="authors' code")
        ] = "none",
        head_weight: Annotated[
            HeadWeight, Param("whether the weights scale the heads; in the authors' code: weighted")
        ] = "unweighted",
        clip: Clip = 0.0,
    ) -> None:
        super().__init__(head_weight, clip)
        self.normalisation = normalisation

    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """Weights on the simplex, shape [k]."""
        norms, sizes = gram.diagonal().sqrt(), losses.abs().clamp_min(1e-8)
        divisor = {"none": norms.new_ones(len(norms)), "l2": norms, "loss": sizes, "loss+": sizes * norms}
        scale = divisor[self.normalisation]
        return least_norm_weights(gram / scale.outer(scale))
