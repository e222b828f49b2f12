"""Every update counts the same."""

from __future__ import annotations

from collections.abc import Sequence

from fedmtl.protocol import Update
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger


class Uniform(Weighting):
    """Every update counts the same: ``p_i = 1/K``.

    Examples
    --------
    Whatever the updates are:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.weightings import Uniform
    >>> Uniform().weights([toy_update(client) for client in range(4)], 0, Ledger())
    (0.25, 0.25, 0.25, 0.25)
    """

    @property
    def alike(self) -> bool:
        """They do."""
        return True

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Equal weights that sum to 1."""
        return (1.0 / len(updates),) * len(updates)
