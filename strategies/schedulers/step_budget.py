"""Partial work: a client is given as many steps as it is expected to finish in time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedmtl.protocol import Update


class StepBudget:
    """Fits the steps of orders to a time, by the seconds per step that each client's updates took so far.

    A client that never reported, or that is fast enough, is given its usual work; the others as many steps as fit, at
    least one. The seconds per step are an exponential mean, transfers and start-up included.

    Parameters
    ----------
    seconds
        The time.
    smoothing
        Weight of a client's newest update in its mean.
    """

    def __init__(self, seconds: float, smoothing: float = 0.5) -> None:
        self.seconds = seconds
        self.smoothing = smoothing
        self._speeds: dict[int, tuple[float, int]] = {}  # client -> seconds per step, steps of its usual work

    def learn(self, update: Update) -> None:
        """Take an update's duration and steps into the client's mean."""
        pace = update.duration / update.steps
        old, usual = self._speeds.get(update.client, (pace, update.steps))
        self._speeds[update.client] = (old + self.smoothing * (pace - old), max(usual, update.steps))

    def steps(self, client: int) -> int | None:
        """Steps of the client's next order; None for its usual work."""
        pace, usual = self._speeds.get(client, (0.0, 0))
        if pace * usual <= self.seconds:
            return None
        return max(1, math.floor(self.seconds / pace))

    def state_dict(self) -> dict[str, Any]:
        """The clients' speeds."""
        return {"speeds": [[client, pace, usual] for client, (pace, usual) in self._speeds.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._speeds = {int(client): (float(pace), int(usual)) for client, pace, usual in state["speeds"]}
