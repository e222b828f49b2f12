"""Clients that report their first losses, for selections by loss (:mod:`clients.policies.loss_reports`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger


class LossReports(ClientPolicy):
    """Clients train with the run's settings and report mean and root mean square of their first losses.

    Parameters
    ----------
    steps
        Over how many steps; 0 for those of the first epoch.
    mu
        Factor of a proximal term; None for that of the run's settings.
    rate
        A client's learning rate from the run's; None for the run's itself.
    compression
        The options of the compressor that are a client's own in an order from a version; None for none.
    """

    name = "loss-reports"
    needs = MappingProxyType({"local-steps": "a client that trains no step has no first losses"})

    def __init__(
        self,
        steps: int = 0,
        mu: float | None = None,
        rate: Callable[[int, float], float] | None = None,
        compression: Callable[[int, int], Mapping[str, Any]] | None = None,
    ) -> None:
        self.steps = steps
        self.mu = mu
        self._rate = rate
        self._compression = compression

    @property
    def constants(self) -> Mapping[str, Any]:
        """The number of steps."""
        return {"steps": self.steps}

    def compression(self, client: int, version: int) -> Mapping[str, Any]:
        """The client's own options."""
        return {} if self._compression is None else self._compression(client, version)

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the proximal term."""
        told = settings if self.mu is None else dataclasses.replace(settings, proximal=self.mu)
        if self._rate is not None:
            told = dataclasses.replace(told, learning_rate=self._rate(client, settings.learning_rate))
        return Instruction(told, {}, {})
