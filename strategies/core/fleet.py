"""The fleet: whoever takes orders and delivers events, simulated or real."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.protocol import Arrival, Deadline, Event, TrainOrder, Update
from fedmtl.toy import toy_update
from fedmtl.update_contract import Claim


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

    def claim(self, client: int) -> Claim | None:
        """The client's examples and tasks, where they are known; None of real clients."""
        return None

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


class ToyFleet(Fleet):
    """Clients that take a fixed time for a job and train by a function: for trying a strategy out in a few lines.

    Models and updates to go with it are in :mod:`fedmtl.toy`.

    Parameters
    ----------
    seconds
        How long a job takes each client.
    train
        The change that a client makes of the model that it was sent, shape [P].

    Examples
    --------
    A fast and a slow client halve what they are sent; every answer is a server step.

    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.fleet import ToyFleet
    >>> from strategies.core.loop import Loop
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.schedulers import Asynchronous
    >>> from strategies.weightings import Uniform
    >>> strategy = Strategy(Asynchronous(), GradientAggregator(Uniform()))
    >>> strategy.initialise(toy_model([8.0, -8.0]))
    >>> fleet = ToyFleet({0: 1.0, 1: 2.5}, train=lambda order: -0.5 * order.base.vector)
    >>> Loop(strategy, fleet).run(lambda loop: "enough" if loop.strategy.model.version == 3 else None)
    >>> fleet.now(), strategy.ledger.aggregated, strategy.model.vector
    (2.5, {0: 2, 1: 1}, tensor([-2.,  2.]))
    """

    simulated = True

    def __init__(self, seconds: Mapping[int, float], train: Callable[[TrainOrder], Tensor]) -> None:
        self._seconds = seconds
        self._train = train
        self._time = 0.0
        self._sent = 0
        self._training: list[tuple[float, int, float, TrainOrder]] = []  # a heap of (end, number, start, order)

    def clients(self) -> Sequence[int]:
        """All of them."""
        return list(self._seconds)

    def now(self) -> float:
        """The time of the last event."""
        return self._time

    def send(self, orders: Sequence[TrainOrder]) -> None:
        """Note when each will be answered."""
        for order in orders:
            end = self._time + self._seconds[order.client]
            heapq.heappush(self._training, (end, self._sent, self._time, order))
            self._sent += 1

    def next_event(self, until: float | None) -> Event | None:
        """The next answer, those of one instant in the order of their orders."""
        if self._training and (until is None or self._training[0][0] <= until):
            self._time, _, start, order = heapq.heappop(self._training)
            job: dict[str, Any] = {"job": order.job, "steps": order.steps or 1}
            times = {"dispatched_at": start, "arrived_at": self._time}
            update = toy_update(order.client, self._train(order), base_version=order.base.version, **job, **times)
            return Arrival(self._time, update)
        if until is None:
            return None
        self._time = max(self._time, until)
        return Deadline(self._time)
