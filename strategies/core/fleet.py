"""The fleet: whoever takes orders and delivers events, simulated or real."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import Event, TrainOrder, Update


class Interrupted(Exception):  # noqa: N818 (no error)
    """A fleet gave up what it was waiting for, because of a signal."""


class Fleet(ABC):
    """The clients as the server's loop sees them. Only a fleet knows what time is.

    Attributes
    ----------
    simulated
        Whether the devices are made up, so that their speeds are known.
    """

    simulated: bool = False

    @abstractmethod
    def clients(self) -> Sequence[int]:
        """The clients that are there and free at the start (waits for them where they are real)."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since the start, by the fleet's clock."""

    @abstractmethod
    def send(self, orders: Sequence[TrainOrder]) -> None:
        """Give orders to clients. Orders given together belong to one decision."""

    @abstractmethod
    def next_event(self, until: float | None) -> Event | None:
        """The next event in time; a `Deadline` if none comes by `until`; None if nothing will ever happen again.

        An update that arrives at the very instant of the deadline comes before it.
        """

    def interrupt(self) -> None:
        """The run is to end after the event at hand; called by a signal's handler, in the thread that runs the loop.

        Raises
        ------
        Interrupted
            In the middle of whatever the fleet is waiting for, if it waits for the real world and not for work.
        """
        return None

    def train_at_once(self, on_outcome_known: Callable[[Update], None]) -> None:
        """Train every job when its order is sent, and show its update before anything else happens.

        After a restore the updates of the jobs in flight are shown once more.

        Raises
        ------
        ConfigError
            If the fleet cannot know: clients that are real train when they train.
        """
        raise ConfigError(f"{type(self).__name__} cannot show updates before they arrive: take simulated clients")

    def state_dict(self) -> dict[str, Any] | None:
        """The world's state, or None if it cannot be saved."""
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        raise RuntimeError(f"{type(self).__name__} cannot be restored")

    def close(self) -> None:
        """Let go of whatever the fleet holds."""
        return None
