"""Curricula over clients: the server trains with the clients first whose loss is small, and opens the pool.

"When Do Curricula Work in Federated Learning?" (arXiv 2212.12712). A round of K clients is drawn at random from the
first ``max(K, ceil(share N))`` of the N idle ones, sorted by the loss that each last reported. A client that never
reported comes before all others, so that its loss becomes known.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from fedmtl.protocol import Update
from strategies.selectors.base import Rows, Selector, mean_loss, ranking


def paced(version: int, start: float, versions: int) -> float:
    """The share that is open: from `start` at version 0 linearly to 1 at `versions`, and 1 from there on."""
    return 1.0 if version >= versions else start + (1.0 - start) * version / versions


class PacedSelector(Selector):
    """Draws from a pool of clients that opens round by round.

    Parameters
    ----------
    order
        Who comes first: those with the smallest loss, or those with the largest.
    start, rounds
        The share of the clients in the first round, and the round from which on everybody is in the pool.
    """

    def __init__(self, *, order: Literal["easy_first", "hard_first"], start: float, rounds: int) -> None:
        super().__init__(loss=-math.inf)
        self.order = order
        self.start = start
        self.rounds = rounds

    def heard(self, update: Update) -> None:
        """Note the loss."""
        loss = mean_loss(update, "loss_mean")
        row = self.candidates.row(update.client)  # first, for it may move the column
        self.candidates["loss"][row] = loss if self.order == "easy_first" else -loss

    def _rows(self, count: int, generator: np.random.Generator) -> Rows:
        pool = self.pool(count)
        return pool[generator.permutation(len(pool))[:count]]

    def pool(self, count: int) -> Rows:
        """Rows of the clients that a round of so many is drawn from."""
        idle = self.candidates.idle
        size = max(count, math.ceil(paced(self.round - 1, self.start, self.rounds) * len(idle)))
        return idle[ranking(self.candidates["loss"][idle])[:size]]
