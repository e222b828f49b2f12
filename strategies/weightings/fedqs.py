"""FedQS's weights: clients whose updates are rare in kind ask for more weight, and get it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from fedmtl.protocol import Update
from strategies.core.kinds import Step, Weighting
from strategies.core.ledger import Ledger


class FedQSWeights(Weighting):
    """A base weight, raised for the updates that carry the feedback bit, then normalised.

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
    speed
        What stands for f_i in the exponent: ``"frequency"`` for f_i, ``"ratio"`` for ``F_i = min(f_bar / f_i,
        frequency_cap)``.
    similarity
        ``"1+G^2"`` or ``"(1+G)^2"``.
    similarity_cap, frequency_cap
        Upper bounds of G_i and F_i.
    """

    def __init__(
        self,
        base: Weighting,
        *,
        phi: float | None = None,
        feedback: bool = True,
        speed: Literal["frequency", "ratio"] = "frequency",
        similarity: Literal["1+G^2", "(1+G)^2"] = "1+G^2",
        similarity_cap: float = 2.0,
        frequency_cap: float = 9.0,
    ) -> None:
        self.base = base
        if feedback:
            self.needs = {"feedback": "without the bits every weight would be the base's: take FedQSPolicy"}
        self.phi = phi
        self.feedback = feedback
        self.speed = speed
        self.similarity = similarity
        self.similarity_cap = similarity_cap
        self.frequency_cap = frequency_cap

    def look(self, step: Step) -> None:
        """Let the base look."""
        self.base.look(step)

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that are not negative and sum to 1."""
        base = self.base.weights(updates, version, ledger)
        if not self.feedback or not any(map(_has_bit, updates)):
            return base
        raised = self.unnormalised(updates, base, ledger)
        total = math.fsum(raised)
        return tuple(p / total for p in raised)

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
        if self.speed == "ratio" and f_bar is not None:
            f = min(f_bar / f, self.frequency_cap) if f > 0 else self.frequency_cap
        return math.pow(math.e / 2, phi - f)

    def _similarity_factor(self, update: Update, ledger: Ledger) -> float:
        theta, theta_bar = update.terms.get("similarity"), ledger.mean("similarity")
        if theta is None or not math.isfinite(theta) or not theta_bar:
            return 1.0
        G = min(max(theta / theta_bar, 0.0), self.similarity_cap)
        return (1 + G) ** 2 if self.similarity == "(1+G)^2" else 1 + G**2


def _has_bit(update: Update) -> bool:
    return update.terms.get("feedback") == 1.0
