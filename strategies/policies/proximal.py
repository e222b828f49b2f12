"""Clients that are held near the model that they were sent.

Down: the factor and the epochs or steps, in the settings. Up: nothing beside the update. The client's half is
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
STRAGGLERS = Param("probability that a client runs only some of its epochs, or of training.steps", ge=0, le=1)
Mu = Annotated[float, PROXIMAL.by("authors' code")]
Stragglers = Annotated[float, STRAGGLERS.by("paper")]


class Proximal(ClientPolicy):
    """Clients are held near the model that they were sent, and stragglers do partial work (FedProx).

    ``mu/2 ||w - w_base||^2`` is added to the local objective (arXiv 1812.06127; FedAsync calls the factor rho); mu
    replaces the factor of the run's settings. A straggler runs 1 to all of its epochs, or of its steps where the run
    counts these, each number as likely; this has no effect where the scheduler says how many steps to run.

    Examples
    --------
    All clients are stragglers, and run one to all of their ten epochs:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies import Proximal
    >>> policy, settings = Proximal(mu=0.1, stragglers=1.0), TrainSettings(epochs=10)
    >>> policy.prepare(toy_model([0.0]), seed=0)
    >>> sent = [policy.instruct(client, settings, toy_model([0.0]), Ledger()).settings for client in range(6)]
    >>> sent[0].proximal, [each.epochs for each in sent]
    (0.1, [10, 6, 10, 2, 10, 9])
    """

    def __init__(self, *, mu: Mu = 0.01, stragglers: Stragglers = 0.0) -> None:
        self.mu = mu
        self.stragglers = stragglers
        self._seed = 0

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the draws."""
        self._seed = seed

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the factor and the epochs or steps."""
        epochs, steps = settings.epochs, settings.steps
        if self.stragglers > 0:
            generator = numpy_generator(self._seed, "stragglers", client, model.version)
            if generator.random() < self.stragglers:
                done = int(generator.integers(1, steps or epochs, endpoint=True))
                epochs, steps = (done, None) if steps is None else (epochs, done)
        return Instruction(dataclasses.replace(settings, proximal=self.mu, epochs=epochs, steps=steps), {}, {})
