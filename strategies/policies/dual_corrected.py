"""Clients that correct their drift by a dual variable.

Down: lambda, in the settings, and the constants ``rho`` and ``mix``. Up: nothing beside the update. The client's half
is :mod:`clients.policies.dual_corrected`.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Annotated

from fedmtl.components import Param
from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger
from strategies.policies.sharpness_aware import CLIMB, MIX

_CODE = "authors' code"

Lambda = Annotated[float, Param("lambda, factor of drift and dual", ge=0, source=_CODE)]
Climb = Annotated[float, CLIMB.by(_CODE)]
Mix = Annotated[float, MIX.by(_CODE)]


class DualCorrected(ClientPolicy):
    """Clients correct their drift by a dual variable, and descend at perturbed points (FedSpeed)."""

    name = "dual-corrected"
    provides = frozenset({"duals"})
    needs = MappingProxyType(
        {"duals-mean": "what clients correct by must go into the model; take strategy.aggregator = 'dual-averaged'"}
    )

    def __init__(self, *, lam: Lambda = 0.1, rho: Climb = 0.1, mix: Mix = 1.0) -> None:
        self.lam = lam
        self.constants = {"rho": rho, "mix": mix}

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with lambda as the factor of the proximal term."""
        return Instruction(dataclasses.replace(settings, proximal=self.lam), {}, {})
