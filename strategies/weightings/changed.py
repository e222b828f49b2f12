"""A weighting that changes the weights of another."""

from __future__ import annotations

from strategies.core.kinds import Step, Weighting


class ChangedWeights(Weighting):
    """Another rule gives weights, and this one changes them.

    Parameters
    ----------
    base
        Gives them.
    """

    def __init__(self, base: Weighting) -> None:
        self.base = base

    def look(self, step: Step) -> None:
        """Let the base look."""
        self.base.look(step)
