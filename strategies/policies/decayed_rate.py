"""Clients that slow down with the steps that they have done.

Down: the rate, in the settings. Up: nothing beside the update. The client's half is :mod:`clients.policies.plain`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fedmtl.components import Param
from fedmtl.protocol import GlobalModel, TrainSettings, Update
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger


class DecayedRate(ClientPolicy):
    """A client's learning rate falls with the steps that it has done.

    It is ``eta factor^floor(steps_i / period)``, with the steps of the client's aggregated updates.

    Examples
    --------
    Client 0 has done 250 steps, so two periods:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies import DecayedRate
    >>> model, settings = toy_model([0.0]), TrainSettings(learning_rate=1.0)
    >>> policy = DecayedRate(factor=0.5, period=100)
    >>> policy.on_aggregated(model, model, [toy_update(0, steps=250)], Ledger())
    >>> [policy.instruct(client, settings, model, Ledger()).settings.learning_rate for client in range(2)]
    [0.25, 1.0]
    """

    def __init__(
        self,
        *,
        factor: Annotated[float, Param("decay per period", gt=0, le=1)] = 0.995,
        period: Annotated[int, Param("local steps of a period", ge=1)] = 100,
    ) -> None:
        self.factor = factor
        self.period = period
        self._steps: dict[int, int] = {}

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the client's rate."""
        decay = self.factor ** (self._steps.get(client, 0) // self.period)
        return Instruction(dataclasses.replace(settings, learning_rate=settings.learning_rate * decay), {}, {})

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """Count the local steps of each client's aggregated updates."""
        for update in updates:
            self._steps[update.client] = self._steps.get(update.client, 0) + update.steps

    def state_dict(self) -> dict[str, Any]:
        """Steps of each client."""
        return {"steps": list(self._steps.items())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._steps = {int(client): int(steps) for client, steps in state["steps"]}
