"""Parts that see an update when its job begins, as no real server can.

The code of FedQS's authors trains a job at its beginning and hands the result over at its end, and lets the server see
some of it in between. Parts that reproduce this are told of every update when its order is sent, by a simulated world.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from fedmtl.protocol import Update
from strategies.core.ledger import Ledger
from strategies.core.part import parts_within
from strategies.core.strategy import Strategy


@runtime_checkable
class Foreseeing(Protocol):
    """A part that is told of updates ahead."""

    def foresee(self, update: Update, ledger: Ledger) -> None:
        """A client began a job, and this is how it will end. After a run is resumed it may be told a second time."""
        ...


def foresight(strategy: Strategy) -> Callable[[Update], None] | None:
    """What to call with every update when its job begins; None if no part of the strategy asks for it."""
    parts = (strategy.scheduler, strategy.aggregator, strategy.policy, strategy.task_weights)
    listening = [inner for part in parts for inner in parts_within(part) if isinstance(inner, Foreseeing)]
    if not listening:
        return None

    def tell(update: Update) -> None:
        for part in listening:
            part.foresee(update, strategy.ledger)

    return tell
