"""Clients are held near the model that they were sent."""

from __future__ import annotations

import dataclasses

from fedmtl.protocol import GlobalModel, TrainSettings
from fedmtl.randomness import numpy_generator
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger


class Proximal(ClientPolicy):
    """Adds ``mu/2 ||w - w_base||^2`` to the local objective (FedProx, arXiv 1812.06127; FedAsync calls the factor rho).

    Parameters
    ----------
    mu
        The factor; it replaces that of the run's settings.
    stragglers
        Probability that a client does partial work in a version: 1 to all of its epochs, each as likely. (It has no
        effect where the scheduler says how many steps to run.)
    """

    def __init__(self, mu: float, stragglers: float = 0.0) -> None:
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
