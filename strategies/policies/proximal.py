"""Clients are held near the model that they were sent."""

from __future__ import annotations

import dataclasses

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.ledger import Ledger
from strategies.parts import ClientPolicy, Instruction


class Proximal(ClientPolicy):
    """Adds ``mu/2 ||w - w_base||^2`` to the local objective (FedProx, arXiv 1812.06127; FedAsync calls the factor rho).

    Parameters
    ----------
    mu
        The factor; it replaces that of the run's settings.
    """

    def __init__(self, mu: float) -> None:
        self.mu = mu

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the factor."""
        return Instruction(dataclasses.replace(settings, proximal=self.mu), {}, {})
