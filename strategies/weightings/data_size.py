"""An update counts as much as its client has examples."""

from __future__ import annotations

from collections.abc import Sequence

from fedmtl.protocol import Update
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger


class DataSize(Weighting):
    """An update counts as much as its client has examples.

    ``p_i = n_i / sum_j n_j`` with n_i examples at the client (FedAvg, arXiv 1602.05629).

    Examples
    --------
    One client has three times as many examples as the other:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.weightings import DataSize
    >>> DataSize().weights([toy_update(0, examples=30), toy_update(1, examples=10)], 0, Ledger())
    (0.75, 0.25)
    """

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that sum to 1."""
        total = sum(update.examples for update in updates)
        return tuple(update.examples / total for update in updates)
