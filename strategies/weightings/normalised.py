"""FedNova's weights: clients that did more local work do not pull harder for it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.protocol import Update
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger
from strategies.weightings.changed import ChangedWeights


class Normalised(ChangedWeights):
    """Clients that did more local work do not pull harder for it (FedNova).

    ``p_i tau_eff / ||a_i||_1`` with the weights p_i of another rule, which sum to 1. ``||a_i||_1`` says how many
    plain gradient steps client i's local steps amount to (:func:`gradient_mass`), and ``tau_eff = sum_i p_i
    ||a_i||_1``; with a proximal term ``tau_eff = sum_i p_i tau_i``. Clients that did equal work have the weights p_i.

    Parameters
    ----------
    base
        Gives the p_i.
    mu
        Factor of the clients' proximal term.

    Examples
    --------
    The second client took four times as many steps, and came four times as far, in the other direction. Neither pulls
    harder than the other:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.weightings import Normalised, Uniform
    >>> updates = [toy_update(0, [1.0], steps=5), toy_update(1, [-4.0], steps=20)]
    >>> weights = Normalised(Uniform()).weights(updates, 0, Ledger())
    >>> weights, sum(p * update.delta for p, update in zip(weights, updates))
    ((1.25, 0.3125), tensor([0.]))
    """

    needs = MappingProxyType({"local-steps": "an update is divided by the work that it took"})

    def __init__(
        self, base: Weighting, *, mu: Annotated[float, Param("factor of the clients' proximal term", ge=0)] = 0.0
    ) -> None:
        super().__init__(base)
        self.mu = mu

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Positive weights; their sum is 1 if all did equal work and there is no proximal term."""
        p = self.base.weights(updates, version, ledger)
        tau_eff, masses = self._work(p, updates)
        return tuple(share * tau_eff / mass for share, mass in zip(p, masses, strict=True))

    def scales(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """``tau_eff / ||a_i||_1``, by which updates of unequal work become comparable."""
        tau_eff, masses = self._work(self.base.weights(updates, version, ledger), updates)
        inner = self.base.scales(updates, version, ledger)
        return tuple(scale * tau_eff / mass for scale, mass in zip(inner, masses, strict=True))

    def _work(self, p: Sequence[float], updates: Sequence[Update]) -> tuple[float, list[float]]:
        """tau_eff, and the ``||a_i||_1``."""
        masses = [gradient_mass(update.steps, update.momentum, update.learning_rate * self.mu) for update in updates]
        work = masses if self.mu == 0.0 else [float(update.steps) for update in updates]
        return math.fsum(share * amount for share, amount in zip(p, work, strict=True)), masses


@functools.lru_cache(maxsize=4096)
def gradient_mass(steps: int, momentum: float, rate_times_mu: float) -> float:
    """``||a||_1`` of so many steps of SGD with heavy-ball momentum m and a proximal term.

    If each gradient is 1, the distance ``u = (w_start - w) / eta`` obeys ``v <- m v + 1 - eta mu u``, ``u <- u + v``.
    That is tau without momentum and proximal term, ``sum_{k=1..tau} (1 - m^k) / (1 - m)`` with momentum, and
    ``a <- (1 - eta mu) a + 1`` with the proximal term. The recursion is linear, so that its steps are a matrix power.

    With both, and a large eta mu, u swings about and may even change its sign, for early gradients then count
    negatively. The norm is at least 1, what the last gradient counts, and so is what is returned.
    """
    m, q = momentum, min(rate_times_mu, 1.0)  # beyond 1 a step overshoots the start, and its mass has no meaning
    step = np.array([[1.0 - q, m, 1.0], [-q, m, 1.0], [0.0, 0.0, 1.0]])  # of (u, v, 1)
    return max(float(np.linalg.matrix_power(step, steps)[0, 2]), 1.0)
