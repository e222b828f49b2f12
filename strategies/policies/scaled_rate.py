"""Clients whose learning rates follow the steps that the scheduler gives them.

Down: the rate, in the settings. Up: nothing beside the update. The client's half is :mod:`clients.policies.plain`.
"""

from __future__ import annotations

import dataclasses

from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction, Scheduler
from strategies.core.ledger import Ledger
from strategies.schedulers import Queued


class ScaledRate(ClientPolicy):
    """Clients that take more steps take smaller ones (FedQueue).

    Parameters
    ----------
    scheduler
        Its budgets make the factor: fewest steps of any client over this one's.

    Raises
    ------
    ConfigError
        If it has no budgets.

    Examples
    --------
    One client is to take 50 steps and the other 20. The first takes smaller ones:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies import ScaledRate
    >>> from strategies.schedulers import Queued
    >>> scheduler = Queued(round_seconds=10.0, first_steps=20)
    >>> orders = scheduler.begin(range(2), now=0.0).assignments
    >>> for client, seconds in [(0, 4.0), (1, 10.0)]:
    ...     decision = scheduler.on_update(toy_update(client, steps=20, arrived_at=seconds), now=seconds)
    >>> policy, settings = ScaledRate(scheduler), TrainSettings(learning_rate=0.5)
    >>> [policy.instruct(client, settings, toy_model([0.0]), Ledger()).settings.learning_rate for client in range(2)]
    [0.2, 0.5]
    """

    def __init__(self, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Queued):
            raise ConfigError(
                f"ScaledRate with {type(scheduler).__name__}: it needs 'step-budgets', which none of them has; take "
                "strategy.scheduler.name = 'queued'"
            )
        self._factor = scheduler.rate_factor

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the client's rate."""
        rate = settings.learning_rate * self._factor(client)
        return Instruction(dataclasses.replace(settings, learning_rate=rate), {}, {})
