"""How long a client will take for so many local steps, learned from what it took before."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from strategies.core.part import Trait

SpeedModelName = Literal["ema", "affine"]

NEEDS: Mapping[Trait, str] = MappingProxyType({"local-steps": "seconds per step are learned from every job"})
"""What a part that learns speeds relies on."""

_LEAST_SECONDS = 1e-9  # a report at the instant of its order would make a client infinitely fast
_ROUNDING = 1e-9  # at exact multiples a quotient may lie just below the whole number


class SpeedModel(ABC):
    """Estimates for each client; every operation costs O(1)."""

    @abstractmethod
    def observe(self, client: int, seconds: float, steps: int) -> None:
        """The client took so long for so many steps."""

    @abstractmethod
    def knows(self, client: int) -> bool:
        """Whether the client was ever observed."""

    @abstractmethod
    def cost(self, client: int) -> tuple[float, float]:
        """The fixed seconds c of a job and the seconds t per step, ``t > 0``."""

    def seconds(self, client: int, steps: int) -> float:
        """Predicted duration of a job of so many steps."""
        fixed, each = self.cost(client)
        return fixed + each * steps

    def steps(self, client: int, seconds: float) -> int:
        """Steps that the client can finish in so many seconds; negative if even the fixed cost is too long."""
        fixed, each = self.cost(client)
        return math.floor((seconds - fixed) / each + _ROUNDING)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What is known of each client's speed."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""


class MovingAverage(SpeedModel):
    """Seconds per step as an exponential moving average: ``S <- (1 - mu) S + mu T / Q``; the first report sets S.

    Parameters
    ----------
    momentum
        mu, the weight of the newest report (1: no memory).

    Examples
    --------
    A job takes 1 s a step, the next 3 s; with this momentum both count the same.

    >>> from strategies.schedulers.speeds import MovingAverage
    >>> speeds = MovingAverage(momentum=0.5)
    >>> for seconds in (10.0, 30.0):
    ...     speeds.observe(client=0, seconds=seconds, steps=10)
    >>> speeds.cost(0), speeds.seconds(0, steps=4), speeds.steps(0, seconds=11.0)
    ((0.0, 2.0), 8.0, 5)
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self._seconds: dict[int, float] = {}

    def observe(self, client: int, seconds: float, steps: int) -> None:
        """Take the job's seconds per step into the client's average."""
        new = max(seconds / steps, _LEAST_SECONDS)
        old = self._seconds.get(client, new)
        self._seconds[client] = (1 - self.momentum) * old + self.momentum * new

    def knows(self, client: int) -> bool:
        """Whether there is an S."""
        return client in self._seconds

    def cost(self, client: int) -> tuple[float, float]:
        """No fixed cost, and S seconds per step: ``(0, S)``."""
        return 0.0, self._seconds[client]

    def state_dict(self) -> dict[str, Any]:
        """S of each client."""
        return {"seconds": list(self._seconds.items())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._seconds = {int(client): float(seconds) for client, seconds in state["seconds"]}


class Affine(SpeedModel):
    """``T = c + t Q``, fitted by least squares with weights that halve from report to report.

    An average of T / Q mixes a job's fixed cost (transfer, start-up) into the cost of a step, so that a shorter job
    than the last is predicted too short and comes too late. While a client's jobs are all of one length, c stays what
    it was (0 at first) and t is what the mean leaves for a step; where the fit has no sense (``t <= 0`` or ``c < 0``)
    c is 0.

    Examples
    --------
    Two jobs of different lengths, ``T = 2 + Q`` seconds. The average of T / Q is wrong about a short one:

    >>> from strategies.schedulers.speeds import Affine, MovingAverage
    >>> for speeds in (Affine(), MovingAverage(momentum=0.5)):
    ...     speeds.observe(client=0, seconds=12.0, steps=10)
    ...     speeds.observe(client=0, seconds=22.0, steps=20)
    ...     round(speeds.seconds(0, steps=2), 3)
    4.0
    2.3
    """

    _MEMORY = 0.5
    _LEAST_SPREAD = 1e-2  # a weighted sum of squares of Q far below one step: lengths that are long forgotten

    def __init__(self) -> None:
        # Per client: the weighted means of Q and T, the sum of weights, the weighted sums of squares of Q and of
        # products of Q and T about these means, and c.
        self._fits: dict[int, tuple[float, float, float, float, float, float]] = {}

    def observe(self, client: int, seconds: float, steps: int) -> None:
        """Take the job's duration and steps into the client's fit."""
        mean_q, mean_t, weight, qq, qt, fixed = self._fits.get(client, (float(steps), seconds, 0.0, 0.0, 0.0, 0.0))
        old = self._MEMORY * weight
        weight = old + 1.0
        off_q, off_t = steps - mean_q, seconds - mean_t
        qq, qt = (self._MEMORY * s + old / weight * off_q * off for s, off in ((qq, off_q), (qt, off_t)))
        mean_q, mean_t = mean_q + off_q / weight, mean_t + off_t / weight
        if qq > self._LEAST_SPREAD:
            fixed = mean_t - qt / qq * mean_q
        if not 0.0 <= fixed < mean_t:
            fixed = 0.0
        self._fits[client] = (mean_q, mean_t, weight, qq, qt, fixed)

    def knows(self, client: int) -> bool:
        """Whether there is a fit."""
        return client in self._fits

    def cost(self, client: int) -> tuple[float, float]:
        """The fixed seconds and those per step of the client's fit: ``(c, t)``."""
        mean_q, mean_t, _, _, _, fixed = self._fits[client]
        return fixed, max((mean_t - fixed) / mean_q, _LEAST_SECONDS)

    def state_dict(self) -> dict[str, Any]:
        """The fit of each client."""
        return {"fits": [[client, *fit] for client, fit in self._fits.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._fits = {
            int(c): (float(q), float(t), float(w), float(qq), float(qt), fixed)
            for c, q, t, w, qq, qt, fixed in state["fits"]
        }


def speed_model(name: SpeedModelName, momentum: float) -> SpeedModel:
    """The model of seconds per step that an option names."""
    return MovingAverage(momentum) if name == "ema" else Affine()
