"""Weights against the whole federation, and a bound for their sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.protocol import Update
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger
from strategies.weightings.changed import ChangedWeights

ShareOf = Annotated[Literal["clients", "examples"], Param("what the share is of")]


class ShareOfAll(ChangedWeights):
    """Weights against all clients (FedCompass's 1/m) and not against the updates at hand.

    ``p_i = (share of all clients that is in the step) * q_i`` with weights q_i of another rule, which sum to 1. With
    ``q_i = 1/K`` and by clients this is FedCompass's ``p_i = 1/m``, where m counts all clients and not the updates at
    hand; with ``q_i = n_i / sum_j n_j`` and by examples it is ``n_i / N``. A step of one client out of many is then as
    small as its client's part in a step of all.

    Parameters
    ----------
    base
        Gives the q_i.
    by
        Share of ``"clients"``, K / m, or of ``"examples"``, ``sum_j n_j / N``. N is counted over the clients that have
        reported so far; those that have not are taken to have as many as these on average.

    Examples
    --------
    Two of eight clients are in the step, which is a quarter of a step of all:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import DataSize, ShareOfAll
    >>> updates = [toy_update(0, examples=30), toy_update(1, examples=10)]
    >>> step = Step.of(toy_model([0.0]), updates, clients=range(8))
    >>> ShareOfAll(DataSize()).weights(updates, 0, step.ledger)
    (0.1875, 0.0625)
    """

    def __init__(self, base: Weighting, *, by: ShareOf = "clients") -> None:
        super().__init__(base)
        self.by = by

    @property
    def alike(self) -> bool:
        """As the base has it; by examples the step's length says something of the clients' own."""
        return self.base.alike and self.by == "clients"

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that sum to the share."""
        everybody = len(ledger.known)
        if self.by == "clients":
            share = len(updates) / everybody
        else:
            share = sum(update.examples for update in updates) / (ledger.mean_examples * everybody)
        return tuple(share * q for q in self.base.weights(updates, version, ledger))


class Capped(ChangedWeights):
    """The weights of another rule, scaled down where they sum to more than 1.

    Models can be averaged with such weights only; a client that occurs twice in a step could otherwise make the current
    model count negatively.

    Examples
    --------
    A client is three times in a step of FedCompass's weights ``1/m`` for two clients:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import ShareOfAll, Uniform
    >>> from strategies.weightings.share import Capped
    >>> updates = [toy_update(0), toy_update(0, job=1), toy_update(1), toy_update(0, job=2)]
    >>> step = Step.of(toy_model([0.0]), updates)
    >>> for rule in (ShareOfAll(Uniform()), Capped(ShareOfAll(Uniform()))):
    ...     rule.weights(updates, 0, step.ledger)
    (0.5, 0.5, 0.5, 0.5)
    (0.25, 0.25, 0.25, 0.25)
    """

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """Weights that sum to at most 1."""
        weights = self.base.weights(updates, version, ledger)
        total = math.fsum(weights)
        # A sum that is 1 but for rounding is left alone.
        return tuple(p / total for p in weights) if total > 1.0 + 1e-9 else weights
