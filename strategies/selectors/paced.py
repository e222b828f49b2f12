"""Curricula over clients: the server trains with the clients first whose loss is small, and opens the pool.

"When Do Curricula Work in Federated Learning?" (arXiv 2212.12712). A round of K clients is drawn at random from the
first ``max(K, ceil(share N))`` of the N idle ones, sorted by the loss that each last reported. A client that never
reported comes before all others, so that its loss becomes known.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np

from fedmtl.components import Param
from fedmtl.protocol import Update
from strategies.selectors.base import Rows, Selector, mean_loss, ranking


def paced(version: int, start: float, versions: int) -> float:
    """The share that is open: from `start` at version 0 linearly to 1 at `versions`, and 1 from there on."""
    return 1.0 if version >= versions else start + (1.0 - start) * version / versions


class PacedSelector(Selector):
    """Clients drawn from a pool that opens round by round, those with a small loss being the first in it (curricula).

    A round is one choice of clients here: where rounds are the server's, its versions and these are the same.

    Examples
    --------
    At first the pool is the half of the clients with the smaller losses, and from the third round on everybody:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.selectors import PacedSelector
    >>> selector = PacedSelector(start=0.5, versions=2)
    >>> selector.free(range(4))
    >>> for client, loss in enumerate([0.9, 0.1, 0.7, 0.3]):
    ...     selector.heard(toy_update(client, task_losses=(loss,)))
    >>> for _ in range(3):
    ...     chosen = selector.choose(1)
    ...     selector.candidates.clients[selector.pool(1)].tolist()
    [1, 3]
    [1, 3, 2]
    [1, 3, 2, 0]
    """

    purpose: ClassVar[str] = "PacedSelector"

    def __init__(
        self,
        *,
        client_order: Annotated[
            Literal["easy_first", "hard_first"], Param("who comes first: the smallest losses, or the largest")
        ] = "easy_first",
        start: Annotated[float, Param("share of the clients at the start", gt=0, le=1)] = 0.3,
        versions: Annotated[int, Param("rounds from which on everybody is in the pool", ge=1)] = 200,
    ) -> None:
        super().__init__(loss=-math.inf)
        self.client_order = client_order
        self.start = start
        self.versions = versions

    def heard(self, update: Update) -> None:
        """Note the loss that the client reported."""
        loss = mean_loss(update, "loss_mean")
        row = self.candidates.row(update.client)  # first, for it may move the column
        self.candidates["loss"][row] = loss if self.client_order == "easy_first" else -loss

    def _rows(self, count: int, generator: np.random.Generator) -> Rows:
        pool = self.pool(count)
        return pool[generator.permutation(len(pool))[:count]]

    def pool(self, count: int) -> Rows:
        """Rows of the clients that a round of so many is drawn from."""
        idle = self.candidates.idle
        size = max(count, math.ceil(paced(self.round - 1, self.start, self.versions) * len(idle)))
        return idle[ranking(self.candidates["loss"][idle])[:size]]
