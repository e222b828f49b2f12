"""An update counts as much as it has local steps."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from fedmtl.protocol import Update
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger


class LocalSteps(Weighting):
    """An update counts as much as its client took steps (FedQueue): ``p_i = steps_i / sum_j steps_j``.

    Examples
    --------
    One client took three times as many steps as the other:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.weightings import LocalSteps
    >>> LocalSteps().weights([toy_update(0, steps=5), toy_update(1, steps=15)], 0, Ledger())
    (0.25, 0.75)
    """

    needs = MappingProxyType({"local-steps": "where no client of a step trained, its updates have no weights"})

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that sum to 1."""
        total = sum(update.steps for update in updates)
        return tuple(update.steps / total for update in updates)
