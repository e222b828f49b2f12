"""Clients that train in a way of their own, which they are told once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger
from strategies.core.part import Trait


class LocalTechnique(ClientPolicy):
    """The client's half does all the work.

    Parameters
    ----------
    name
        Of the client's half (see :mod:`clients.policies`).
    constants
        What it needs to know.
    proximal
        Factor of the proximal term; None for that of the run's settings.
    real_features
        Why features must be real numbers, a clause; empty if they may be tokens.
    provides, needs
        See :class:`strategies.core.part.Part`.
    """

    def __init__(
        self,
        name: str,
        constants: Mapping[str, Any],
        *,
        proximal: float | None = None,
        real_features: str = "",
        provides: Iterable[Trait] = (),
        needs: Mapping[Trait, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.proximal = proximal
        self.real_features = real_features
        self.provides = frozenset(provides)
        self.needs = needs
        self._constants = dict(constants)

    @property
    def constants(self) -> Mapping[str, Any]:
        """What the client's half needs."""
        return self._constants

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Refuse tokens where features must be real numbers."""
        if self.real_features and not features.is_floating_point():
            raise ConfigError(
                f"the clients' policy {self.name!r} needs real features, but these are {features.dtype}: "
                f"{self.real_features}; choose another strategy, or data.source"
            )

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings."""
        if self.proximal is not None:
            settings = dataclasses.replace(settings, proximal=self.proximal)
        return Instruction(settings, {}, {})
