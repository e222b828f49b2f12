"""A weighting that changes the weights of another."""

from __future__ import annotations

from strategies.core.kinds import Step, Weighting


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

    def look(self, step: Step) -> None:
        """Let the base look."""
        self.base.look(step)
