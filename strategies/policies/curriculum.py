"""Curricula: the server says how much of its examples a client may use by now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger
from strategies.selectors.paced import paced


class Pacing(ClientPolicy):
    """Sends the open share as the term ``share``; the client's half is :mod:`clients.policies.curriculum`.

    Parameters
    ----------
    order
        Which examples come first.
    start
        The share at version 0.
    versions
        The version from which on everything is open.
    """

    name = "curriculum"

    def __init__(self, order: Literal["easy_first", "hard_first", "random"], start: float, versions: int) -> None:
        self.order = order
        self.start = start
        self.versions = versions

    @property
    def constants(self) -> Mapping[str, Any]:
        """The order."""
        return {"order": self.order}

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The share."""
        return Instruction(settings, {"share": paced(model.version, self.start, self.versions)}, {})
