"""Clients that take more steps take smaller ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger


class ScaledRate(ClientPolicy):
    """Multiplies the run's learning rate with a factor of the client's.

    Parameters
    ----------
    factor
        The factor, for instance the scheduler's (FedQueue: fewest steps of any client over this one's).
    """

    def __init__(self, factor: Callable[[int], float]) -> None:
        self._factor = factor

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the client's rate."""
        rate = settings.learning_rate * self._factor(client)
        return Instruction(dataclasses.replace(settings, learning_rate=rate), {}, {})
