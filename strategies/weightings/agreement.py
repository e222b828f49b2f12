"""FedAC's weights: an update counts by its agreement with what the server did meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.components import Param
from strategies.core.kinds import Step, Weighting
from strategies.weightings.uniform import Uniform
from strategies.weightings.vectors import VectorWeighting

LeastAgreement = Annotated[float, Param("least agreement of an update", gt=0, le=1, source="second-hand")]


class Agreement(VectorWeighting):
    """Updates that agree with the server's movement count more (FedAC).

    ``p_i = r_i / sum_j r_j`` with ``r_i = max(cos(w - w_start_i, Delta_i), floor)`` over the trainable part. A
    fresh update, for which ``w - w_start_i`` is 0, and one that is 0 itself have the floor: there is no angle.

    Parameters
    ----------
    floor
        The least score of an update.

    Examples
    --------
    Since version 0 the server has moved along the first axis. So has the first update; the second goes back, and has
    the least score.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Agreement
    >>> old, new = toy_model([0.0, 0.0]), toy_model([1.0, 0.0], version=1)
    >>> step = Step.of(new, [toy_update(0, [2.0, 0.0]), toy_update(1, [-1.0, 1.0])], earlier=[old])
    >>> rule = Agreement(floor=0.25)
    >>> rule.scores(step)
    [1.0, 0.25]
    >>> rule.look(step)
    >>> rule.weights(step.updates, new.version, step.ledger)
    (0.8, 0.2)
    """

    needs_bases = True

    def __init__(self, *, floor: LeastAgreement = 0.1) -> None:
        super().__init__()
        self.floor = floor

    def scores(self, step: Step) -> Sequence[float]:
        """The agreement r_i of each update."""
        part, w = step.model.layout.trainable, step.model.vector
        drifts: dict[int, Tensor] = {}  # w - w_start by the version started from
        for update in step.updates:
            version = update.base_version
            if version != step.model.version and version not in drifts:
                drifts[version] = w[part] - step.bases[version][part]
        return [
            max(cosine(drifts[update.base_version], update.delta[part]), self.floor)
            if update.base_version in drifts
            else self.floor
            for update in step.updates
        ]

    def under_rule(self) -> Weighting:
        """Equal ones: which updates agree is the rule's to judge."""
        return Uniform()


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors of shape [P], within [-1, 1]; 0 where one of them is 0.

    The product is divided by one norm after the other: that of two small ones could vanish.
    """
    length_a, length_b = float(torch.linalg.vector_norm(a)), float(torch.linalg.vector_norm(b))
    if not (length_a and length_b):
        return 0.0
    return min(max(float(torch.dot(a, b)) / length_a / length_b, -1.0), 1.0)
