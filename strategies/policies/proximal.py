"""Clients that are held near the model that they were sent.

Down: the factor and the epochs, in the settings. Up: nothing beside the update. The client's half is
:mod:`clients.policies.plain`.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from fedmtl.components import Param
from fedmtl.protocol import GlobalModel, TrainSettings
from fedmtl.randomness import numpy_generator
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger

PROXIMAL = Param("factor of the proximal term", ge=0)
STRAGGLERS = Param("probability that a client runs only some of its epochs", ge=0, le=1)
Mu = Annotated[float, PROXIMAL.by("authors' code")]
Stragglers = Annotated[float, STRAGGLERS.by("paper")]


class Proximal(ClientPolicy):
    """Clients are held near the model that they were sent, and stragglers do partial work (FedProx).

    ``mu/2 ||w - w_base||^2`` is added to the local objective (arXiv 1812.06127; FedAsync calls the factor rho); mu
    replaces the factor of the run's settings. A straggler runs 1 to all of its epochs, each as likely; this has no
    effect where the scheduler says how many steps to run.
    """

    def __init__(self, *, mu: Mu = 0.01, stragglers: Stragglers = 0.0) -> None:
        self.mu = mu
        self.stragglers = stragglers
        self._seed = 0

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the draws."""
        self._seed = seed

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the factor and the epochs."""
        epochs = settings.epochs
        if self.stragglers > 0:
            generator = numpy_generator(self._seed, "stragglers", client, model.version)
            if generator.random() < self.stragglers:
                epochs = int(generator.integers(1, epochs, endpoint=True))
        return Instruction(dataclasses.replace(settings, proximal=self.mu, epochs=epochs), {}, {})
