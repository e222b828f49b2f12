"""FedQS's weights: clients whose updates are rare in kind ask for more weight, and get it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.protocol import Update
from fedmtl.similarity import LARGEST
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger
from strategies.weightings.changed import ChangedWeights

_CODE = "authors' code"

FrequencyCap = Annotated[float, Param("upper bound of F", gt=0, le=1000, source=_CODE)]
SimilarityCap = Annotated[float, Param("upper bound of G in a weight", gt=0, source=_CODE)]
Phi = Annotated[float | None, Param("phi of the speed factor; K/N if not set (the code: 0.1)", gt=0, le=100)]
Feedback = Annotated[bool, Param("weights follow the feedback bit", source="paper")]
FeedbackSpeed = Annotated[
    Literal["frequency", "ratio"], Param("what lowers the speed factor's exponent: f_i or F", source=_CODE)
]
FeedbackSimilarity = Annotated[Literal["1+G^2", "(1+G)^2"], Param("similarity factor of a weight", source=_CODE)]


class FedQSWeights(ChangedWeights):
    """A base weight, raised for updates with FedQS's feedback bit; they sum to 1.

    For an update with the bit, ``p_i = q_i (e/2)^(phi - f_i) (1 + G_i^2)`` with the base weight q_i, client i's share
    f_i of all aggregated updates and ``G_i = min(theta_i / theta_bar, cap)``; for the others ``p_i = q_i``. The p_i
    are then divided by their sum. If no update carries the bit they are the base's, untouched. The bit and theta_i
    are the terms ``feedback`` and ``similarity`` of the update; theta_bar is the mean at the moment of the aggregation.

    Parameters
    ----------
    base
        Gives the q_i, which sum to 1.
    phi
        The speed factor's phi; None for K/N, with K the updates of the aggregation and N the clients known.
    feedback
        Whether the bit counts at all.
    feedback_speed
        What stands for f_i in the exponent: ``"frequency"`` for f_i, ``"ratio"`` for ``F_i = min(f_bar / f_i,
        frequency_cap)``.
    feedback_similarity
        ``"1+G^2"`` or ``"(1+G)^2"``.
    similarity_cap, frequency_cap
        Upper bounds of G_i and F_i.

    Examples
    --------
    The second update has the bit, and its similarity is twice the mean:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.weightings import FedQSWeights, Uniform
    >>> ledger = Ledger({"similarity": 10.0})
    >>> updates = [toy_update(0, terms={"similarity": 0.0}), toy_update(1, terms={"similarity": 1.0, "feedback": 1.0})]
    >>> ledger.met(range(4))
    >>> for update in updates:
    ...     ledger.received(update)
    >>> ledger.applied(updates)
    >>> [round(p, 3) for p in FedQSWeights(Uniform()).weights(updates, 0, ledger)]
    [0.167, 0.833]
    """

    follows = MappingProxyType({"similarity": LARGEST})

    def __init__(
        self,
        base: Weighting,
        *,
        phi: Phi = None,
        feedback: Feedback = True,
        feedback_speed: FeedbackSpeed = "frequency",
        feedback_similarity: FeedbackSimilarity = "1+G^2",
        similarity_cap: SimilarityCap = 2.0,
        frequency_cap: FrequencyCap = 9.0,
    ) -> None:
        super().__init__(base)
        if feedback:
            self.needs = {"feedback": "without the bits every weight would be the base's: take FedQSPolicy"}
        self.phi = phi
        self.feedback = feedback
        self.feedback_speed = feedback_speed
        self.feedback_similarity = feedback_similarity
        self.similarity_cap = similarity_cap
        self.frequency_cap = frequency_cap

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that are not negative and sum to 1."""
        base = self.base.weights(updates, version, ledger)
        if not self.feedback or not any(map(_has_bit, updates)):
            return base
        raised = self.unnormalised(updates, base, ledger)
        total = math.fsum(raised)
        return tuple(p / total for p in raised)

    def under_rule(self) -> Weighting:
        """The base's: what clients say of their similarity is not taken on trust where some may lie."""
        return self.base.under_rule()

    def unnormalised(self, updates: Sequence[Update], base: Sequence[float], ledger: Ledger) -> list[float]:
        """The weights before they are divided by their sum."""
        phi = len(updates) / len(ledger.known) if self.phi is None else self.phi
        return [
            q * self._speed_factor(update.client, phi, ledger) * self._similarity_factor(update, ledger)
            if _has_bit(update)
            else q
            for q, update in zip(base, updates, strict=True)
        ]

    def _speed_factor(self, client: int, phi: float, ledger: Ledger) -> float:
        f, f_bar = ledger.frequency(client), ledger.mean_frequency
        if self.feedback_speed == "ratio" and f_bar is not None:
            f = min(f_bar / f, self.frequency_cap) if f > 0 else self.frequency_cap
        return math.pow(math.e / 2, phi - f)

    def _similarity_factor(self, update: Update, ledger: Ledger) -> float:
        theta, theta_bar = update.terms.get("similarity"), ledger.mean("similarity")
        if theta is None or not math.isfinite(theta) or not theta_bar:
            return 1.0
        G = min(max(theta / theta_bar, 0.0), self.similarity_cap)
        return (1 + G) ** 2 if self.feedback_similarity == "(1+G)^2" else 1 + G**2


def _has_bit(update: Update) -> bool:
    return update.terms.get("feedback") == 1.0
