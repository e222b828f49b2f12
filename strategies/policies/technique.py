"""Clients that train in a way of their own, which they are told once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.ledger import Ledger
from strategies.parts import ClientPolicy, Instruction


class LocalTechnique(ClientPolicy):
    """The client's half does all the work.

    Parameters
    ----------
    name
        Of the client's half (see :mod:`clients.adaptation`).
    constants
        What it needs to know.
    proximal
        Factor of the proximal term; None for that of the run's settings.
    """

    def __init__(self, name: str, constants: Mapping[str, Any], *, proximal: float | None = None) -> None:
        self.name = name
        self.proximal = proximal
        self._constants = dict(constants)

    @property
    def constants(self) -> Mapping[str, Any]:
        """What the client's half needs."""
        return self._constants

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings."""
        if self.proximal is not None:
            settings = dataclasses.replace(settings, proximal=self.proximal)
        return Instruction(settings, {}, {})
