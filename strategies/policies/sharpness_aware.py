"""Sharpness-aware clients.

Down: the constants ``rho`` and ``mix``. Up: nothing beside the update. The client's half is
:mod:`clients.policies.sharpness_aware`.
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from strategies.policies.local import LocalPolicy

CLIMB = Param("norm of the climb; 0 for one gradient a step", ge=0)
MIX = Param("share of the perturbed gradient", ge=0, le=1)


class SharpnessAware(LocalPolicy):
    """Clients take their gradients where the loss is higher (SAM, as in DFedSAM)."""

    name = "sharpness-aware"

    def __init__(
        self,
        *,
        rho: Annotated[float, CLIMB] = 0.05,
        mix: Annotated[float, MIX] = 1.0,
    ) -> None:
        self.constants = {"rho": rho, "mix": mix}
