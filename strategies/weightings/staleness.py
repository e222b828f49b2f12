"""Stale updates count less.

The functions are those of "Asynchronous Federated Optimization" (arXiv 1903.03934) of the staleness tau, the number
of versions by which the server is ahead of the one that the client started from. All are 1 for a fresh update and
never rise. (Some libraries leave out the ``+ 1`` of the hinge, add b instead of subtracting it, or take the exponent
positive.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.protocol import Update
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger
from strategies.weightings.changed import ChangedWeights

Staleness = Callable[[float], float]
"""A function s(tau): the factor of an update that is tau versions behind."""

StalenessFunction = Annotated[
    Literal["constant", "polynomial", "hinge"],
    Param("how an update's weight falls with its staleness", source="paper"),
]
EXPONENT = Param("exponent, or slope of the hinge", ge=0)
HINGE_START = Param("staleness up to which the hinge is 1", ge=0)
Exponent = Annotated[float, EXPONENT]
HingeStart = Annotated[float, HINGE_START]
StalenessAt = Annotated[
    Literal["apply", "arrival"],
    Param("staleness when applied, or when it arrived (legacy code)", source="authors' code of FedCompass"),
]


def constant() -> Staleness:
    """No discount: ``s(tau) = 1``."""
    return lambda tau: 1.0


def polynomial(a: float) -> Staleness:
    """``s(tau) = (1 + tau)^-a``."""
    return lambda tau: float((1 + tau) ** -a)


def hinge(a: float, b: float) -> Staleness:
    """``s(tau) = 1`` up to ``tau = b``, then ``1 / (a (tau - b) + 1)``."""
    return lambda tau: 1.0 if tau <= b else 1.0 / (a * (tau - b) + 1.0)


class Discounted(ChangedWeights):
    """Stale updates count less.

    ``p_i = factor * q_i * s(tau_i)`` with the weights q_i of another rule; the sum is not made 1.

    Parameters
    ----------
    base
        Gives the q_i.
    function, a, b
        The function s by its name, and its parameters; :meth:`by` takes any other.
    factor
        For instance FedAsync's mixing weight alpha.
    relative
        Divide each s by its value at the mean staleness of the aggregation, so that the server's step does not shrink
        where all are equally stale.
    at
        Whether tau counts to the version that the update is applied to, or only to that at which it arrived.

    Attributes
    ----------
    staleness
        The function s.

    Examples
    --------
    A fresh update and one that is three versions behind:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.weightings import Discounted, Uniform
    >>> updates = [toy_update(0, base_version=3), toy_update(1, base_version=0)]
    >>> Discounted(Uniform(), a=0.5).weights(updates, 3, Ledger())
    (0.5, 0.25)
    >>> Discounted.by(Uniform(), lambda tau: 0.5**tau).weights(updates, 3, Ledger())
    (0.5, 0.0625)
    """

    def __init__(
        self,
        base: Weighting,
        *,
        function: StalenessFunction = "polynomial",
        a: Exponent = 0.5,
        b: HingeStart = 4.0,
        factor: Annotated[float, Param("weight of a fresh update, times its base weight", gt=0, le=1)] = 1.0,
        relative: Annotated[bool, Param("divide by the value at the mean staleness")] = False,
        at: StalenessAt = "apply",
    ) -> None:
        super().__init__(base)
        functions = {"constant": constant(), "polynomial": polynomial(a), "hinge": hinge(a, b)}
        self.staleness: Staleness = functions[function]
        self.factor = factor
        self.relative = relative
        self.at_arrival = at == "arrival"

    @classmethod
    def by(
        cls,
        base: Weighting,
        staleness: Staleness,
        *,
        factor: float = 1.0,
        relative: bool = False,
        at: Literal["apply", "arrival"] = "apply",
    ) -> Discounted:
        """A discount by any function s, such as ``lambda tau: 0.5**tau``."""
        discounted = cls(base, factor=factor, relative=relative, at=at)
        discounted.staleness = staleness
        return discounted

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that never rise with the staleness; of at most `factor` times the base's unless `relative`."""
        base = self.base.weights(updates, version, ledger)
        ends = (update.arrived_version if self.at_arrival else version for update in updates)
        lags = [end - update.base_version for end, update in zip(ends, updates, strict=True)]
        factor = self.factor
        if self.relative:
            factor /= self.staleness(sum(lags) / len(lags))
        return tuple(factor * q * self.staleness(lag) for q, lag in zip(base, lags, strict=True))
