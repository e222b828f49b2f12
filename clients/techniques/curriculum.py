"""Curricula: a client trains on some of its examples first.

"When Do Curricula Work in Federated Learning?" (arXiv 2212.12712). A client sorts its n examples by a score, the loss
under the model that it was sent, and trains on the first

    m = max(min(n, batch size), ceil(share n))

of them; the server opens the pool by raising the share to 1. Once it is open, nothing is scored or sorted.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from clients.policies.step_rule import Technique, Workbench

OrderName = Literal["easy_first", "hard_first", "random"]


class Curriculum(Technique):
    """Trains on a share of the examples.

    Parameters
    ----------
    share
        Of the examples, in (0, 1].
    order
        Which come first: those with the smallest loss, those with the largest, or any (the control).
    least
        Examples that the pool has at least, if the client has so many.
    seed
        Of the random order.
    """

    def __init__(self, share: float, order: OrderName, least: int, seed: int) -> None:
        self.share = share
        self.order = order
        self.least = least
        self.seed = seed

    def start(self, bench: Workbench) -> Tensor | None:
        """The positions of the pool."""
        n = len(bench.features)
        m = pool_size(n, self.share, self.least)
        if m == n:
            return None
        if self.order == "random":
            return torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[:m]
        return torch.argsort(bench.losses(), descending=self.order == "hard_first", stable=True)[:m]


def pool_size(n: int, share: float, least: int) -> int:
    """m, at most n."""
    return min(n, max(least, math.ceil(share * n)))
