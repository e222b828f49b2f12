"""Updates count by the score by which their clients were chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedmtl.protocol import Update
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger
from strategies.selectors.hetero_select import HeteroSelect
from strategies.weightings.uniform import Uniform


class ScoreWeights(Weighting):
    """``p_i = S_i / sum S`` with the scores, scaled to 0..1, by which the clients were chosen.

    Parameters
    ----------
    selector
        Has the scores.

    Examples
    --------
    The client with the smallest loss has the score 0, and the one with the largest 1:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.selectors import HeteroSelect
    >>> from strategies.weightings.score import ScoreWeights
    >>> selector = HeteroSelect()
    >>> selector.free(range(3))
    >>> for client, loss in enumerate([0.5, 1.0, 1.5]):
    ...     selector.heard(toy_update(client, terms={"loss_mean": loss}))
    >>> updates = [toy_update(client, job=1) for client in sorted(selector.choose(3))]
    >>> [round(p, 3) for p in ScoreWeights(selector).weights(updates, 0, Ledger())]
    [0.0, 0.333, 0.667]
    """

    def __init__(self, selector: HeteroSelect) -> None:
        self.selector = selector

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """The scores over their sum; equal weights if all are 0."""
        scores = [self.selector.score_of(update.client) for update in updates]
        total = math.fsum(scores)
        return tuple(score / total if total > 0 else 1.0 / len(scores) for score in scores)

    def under_rule(self) -> Weighting:
        """Equal ones: scores follow from claimed losses, which are not taken on trust where some may lie."""
        return Uniform()
