"""Partial work: a client is given as many steps as it is expected to finish in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmtl.protocol import Update
from strategies.schedulers.speeds import Affine, SpeedModel


class PartialWork:
    """Fits the steps of orders to a time, by the speed that each client's updates showed so far.

    A client that never reported, or that is fast enough, is given its usual work; the others as many steps as fit, at
    least one. A client's usual work is the most that it has done.

    Parameters
    ----------
    seconds
        The time.
    speeds
        Learns how long a client takes for so many steps; an affine model if not given.

    Examples
    --------
    A client that takes 2 s for a step is given 5 in 10 s; a fast one, and one that is not known, their usual work.

    >>> from fedmtl.toy import toy_update
    >>> from strategies.schedulers.partial_work import PartialWork
    >>> work = PartialWork(seconds=10.0)
    >>> work.learn(toy_update(0, steps=20, arrived_at=5.0))
    >>> work.learn(toy_update(1, steps=20, arrived_at=40.0))
    >>> work.steps(0), work.steps(1), work.steps(2)
    (None, 5, None)
    """

    def __init__(self, seconds: float, speeds: SpeedModel | None = None) -> None:
        self.seconds = seconds
        self._speeds = speeds or Affine()
        self._usual: dict[int, int] = {}

    def learn(self, update: Update) -> None:
        """Take an update's duration and steps into the client's estimate."""
        self._speeds.observe(update.client, update.duration, update.steps)
        self._usual[update.client] = max(update.steps, self._usual.get(update.client, 0))

    def steps(self, client: int) -> int | None:
        """Steps of the client's next order; None for its usual work."""
        if not self._speeds.knows(client):
            return None
        fitting = self._speeds.steps(client, self.seconds)
        return None if fitting >= self._usual[client] else max(1, fitting)

    def state_dict(self) -> dict[str, Any]:
        """The clients' speeds and usual work."""
        return {"speeds": self._speeds.state_dict(), "usual": list(self._usual.items())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._speeds.load_state_dict(state["speeds"])
        self._usual = {int(client): int(steps) for client, steps in state["usual"]}
