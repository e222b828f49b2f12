"""Clients that report their first losses, for selections by loss.

Down: the constant ``steps``. Up: the terms ``loss_mean`` and ``loss_rms``. The client's half is
:mod:`clients.policies.loss_reports`.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Annotated

from fedmtl.components import Param
from fedmtl.protocol import GlobalModel, TrainSettings
from fedmtl.update_contract import LARGEST
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger


class LossReports(ClientPolicy):
    """Clients report their first losses, for a selection by score (Oort, HeteRo-Select).

    Examples
    --------
    Losses of the first two batches, from clients that are held near the model:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies import LossReports
    >>> policy = LossReports(batches=2, mu=0.1)
    >>> policy.constants, policy.instruct(0, TrainSettings(), toy_model([0.0]), Ledger()).settings.proximal
    ({'steps': 2}, 0.1)
    """

    name = "loss-reports"
    measured = MappingProxyType({"loss_mean": (0.0, LARGEST), "loss_rms": (0.0, LARGEST)})
    needs = MappingProxyType({"local-steps": "a client that trains no step has no first losses"})

    def __init__(
        self,
        *,
        batches: Annotated[int, Param("first batches whose losses are reported; 0: an epoch's", ge=0)] = 0,
        mu: Annotated[float | None, Param("factor of a proximal term; the run's if not set", ge=0)] = None,
    ) -> None:
        self.mu = mu
        self.constants = {"steps": batches}

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the proximal term."""
        return Instruction(settings if self.mu is None else dataclasses.replace(settings, proximal=self.mu), {}, {})
