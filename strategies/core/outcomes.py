"""Parts that know how a job will end when it begins, as no real server can.

The code of FedQS's authors trains a job at its beginning and hands the result over at its end, and lets the server see
some of it in between. Parts that reproduce this (:mod:`strategies.aggregators.reference_faults`) are shown every update
when its order is sent, by a simulated world.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from fedmtl.protocol import Update
from strategies.core.ledger import Ledger
from strategies.core.strategy import Strategy


@runtime_checkable
class OutcomeListener(Protocol):
    """A part that is shown updates before they arrive."""

    def on_outcome_known(self, update: Update, ledger: Ledger) -> None:
        """A client began a job that will end with this update. After a run is resumed it may be shown once more."""
        ...


def outcome_listener(strategy: Strategy) -> Callable[[Update], None] | None:
    """What to call with every update when its job begins; None if no part of the strategy asks for it."""
    listening = [part for part in strategy.every_part if isinstance(part, OutcomeListener)]
    if not listening:
        return None

    def on_outcome_known(update: Update) -> None:
        for part in listening:
            part.on_outcome_known(update, strategy.ledger)

    return on_outcome_known
