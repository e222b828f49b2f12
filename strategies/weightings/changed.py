"""A weighting that changes the weights of another."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from fedmtl.protocol import Update
from strategies.core.kinds import Step, Weighting
from strategies.core.ledger import Ledger


class ChangedWeights(Weighting):
    """Another rule gives weights, and this one changes them.

    Parameters
    ----------
    base
        Gives them.

    Examples
    --------
    The least of one: weights are rounded to tenths.

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.weightings import DataSize
    >>> from strategies.weightings.changed import ChangedWeights
    >>> class Rounded(ChangedWeights):
    ...     def weights(self, updates, version, ledger):
    ...         return tuple(round(p, 1) for p in self.base.weights(updates, version, ledger))
    >>> Rounded(DataSize()).weights([toy_update(0, examples=29), toy_update(1, examples=71)], 0, Ledger())
    (0.3, 0.7)
    """

    def __init__(self, base: Weighting) -> None:
        self.base = base

    @property
    def alike(self) -> bool:
        """As the base has it."""
        return self.base.alike

    def look(self, step: Step) -> None:
        """Let the base look."""
        self.base.look(step)

    def scales(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """The base's."""
        return self.base.scales(updates, version, ledger)

    def under_rule(self) -> Weighting:
        """The same change of what the base has there."""
        changed = copy.copy(self)
        changed.base = self.base.under_rule()
        return changed
