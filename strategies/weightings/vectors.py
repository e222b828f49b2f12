"""Weights that depend on the vectors, not only on what updates say of themselves."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from fedmtl.protocol import JobKey, Update
from strategies.core.kinds import Step, Weighting
from strategies.core.ledger import Ledger


class VectorWeighting(Weighting):
    """Scores each step's updates once, in one pass over them.

    The weights are the scores of the updates asked for, divided by their sum; equal weights if that is 0.

    Examples
    --------
    The least of one: an update counts as it is long.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings.vectors import VectorWeighting
    >>> class ByLength(VectorWeighting):
    ...     def scores(self, step):
    ...         return [float(update.delta.norm()) for update in step.updates]
    >>> step = Step.of(toy_model([0.0, 0.0]), [toy_update(0, [3.0, 4.0]), toy_update(1, [0.0, 15.0])])
    >>> rule = ByLength()
    >>> rule.look(step)
    >>> rule.weights(step.updates, 0, step.ledger)
    (0.25, 0.75)
    """

    def __init__(self) -> None:
        self._scores: dict[JobKey, float] = {}

    @abstractmethod
    def scores(self, step: Step) -> Sequence[float]:
        """A score for each update of the step; finite and not negative."""

    def look(self, step: Step) -> None:
        """Score the step's updates."""
        self._scores = {update.key: score for update, score in zip(step.updates, self.scores(step), strict=True)}

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that are not negative and sum to 1."""
        scores = [self._scores[update.key] for update in updates]
        total = math.fsum(scores)
        if total <= 0.0:
            return (1.0 / len(scores),) * len(scores)
        return tuple(score / total for score in scores)


class GivenScores(VectorWeighting):
    """Scores that an aggregator has found itself, one for each update of the step.

    Examples
    --------
    They need not sum to 1:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings.vectors import GivenScores
    >>> step = Step.of(toy_model([0.0, 0.0]), [toy_update(0), toy_update(1)])
    >>> rule = GivenScores([3.0, 1.0])
    >>> rule.look(step)
    >>> rule.weights(step.updates, 0, step.ledger)
    (0.75, 0.25)
    """

    def __init__(self, given: Sequence[float]) -> None:
        super().__init__()
        self._given = given

    def scores(self, step: Step) -> Sequence[float]:
        """The scores that the aggregator found."""
        return self._given
