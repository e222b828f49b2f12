"""Clients that train in a way of their own: the client's half does all the work."""

from __future__ import annotations

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger


class LocalPolicy(ClientPolicy):
    """Every client is sent the run's settings; `name` and `constants` say what its half does with them."""

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The run's settings, as they are."""
        return Instruction(settings, {}, {})
