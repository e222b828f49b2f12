"""Devices: how long an order takes on each client, and when a device goes away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmtl.errors import ConfigError
from fedmtl.randomness import derive_seed

_standard_normal = NormalDist().inv_cdf

LONGEST = 2.0**53
"""Seconds up to which a clock in double precision counts every second: what takes longer is no time of a run."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A device goes away while it works on an order.

    Attributes
    ----------
    after
        Seconds from the sending of the order to the loss of the device.
    away
        Seconds from the loss until the device is back.
    """

    after: float
    away: float


class Devices:
    """The speeds of all clients' devices.

    An order of s steps that are worth w plain ones (:mod:`simulations.work`) takes
    ``startup + (order * w / s + step * w) * jitter + bytes_down / download + bytes_up / upload`` seconds: those of an
    order, and of a step, are those of plain ones. Where they were measured, they are taken as they are, and w is s. An
    order's jitter is log-normal with mean 1 and the given standard deviation: near to a normal distribution where it is
    small, and always positive. Every draw belongs to (client, job) alone.

    Parameters
    ----------
    clients
        Number of clients.
    seed
        Of the devices: ``devices.seed``, or the run's.
    startup_seconds, seconds_per_order, seconds_per_step
        Seconds before the work starts, of an order whatever its steps, and of a step: one number, or one per client.
    jitter
        Standard deviation of the factor on an order's work, as a share of its mean.
    download_bytes_per_second, upload_bytes_per_second
        Bandwidth: one number, or one per client; infinity where transfers take no time.
    dropout
        Probability that a device goes away during an order.
    away_seconds
        Mean of the seconds until it is back; they are exponentially distributed.
    labels
        What each client's device is, for displays; None where devices have no names.
    measured
        Whether the seconds are those that the run's own orders or steps took, whatever these do.

    Raises
    ------
    ConfigError
        If a number is not finite or out of range, or an order would take no time or more than `LONGEST` seconds; names
        the client.
    """

    def __init__(
        self,
        clients: int,
        seed: int,
        *,
        startup_seconds: ArrayLike = 0.0,
        seconds_per_order: ArrayLike = 0.0,
        seconds_per_step: ArrayLike = 0.0,
        jitter: float = 0.0,
        download_bytes_per_second: ArrayLike = math.inf,
        upload_bytes_per_second: ArrayLike = math.inf,
        dropout: float = 0.0,
        away_seconds: float = 0.0,
        labels: Sequence[str] | None = None,
        measured: bool = False,
    ) -> None:
        self.clients = clients
        self.seed = seed
        self.startup_seconds = _per_client("startup_seconds", startup_seconds, clients)
        self.seconds_per_order = _per_client("seconds_per_order", seconds_per_order, clients)
        self.seconds_per_step = _per_client("seconds_per_step", seconds_per_step, clients)
        self.download_bytes_per_second = _per_client("download_bytes_per_second", download_bytes_per_second, clients)
        self.upload_bytes_per_second = _per_client("upload_bytes_per_second", upload_bytes_per_second, clients)
        self.jitter = float(jitter)
        self.dropout = float(dropout)
        self.away_seconds = float(away_seconds)
        self.labels = labels
        self.measured = measured
        self._check()
        # Python floats: arithmetic on NumPy scalars costs several times as much, and this is asked for every order.
        self._startup: list[float] = self.startup_seconds.tolist()
        self._order: list[float] = self.seconds_per_order.tolist()
        self._step: list[float] = self.seconds_per_step.tolist()
        self._download: list[float] = self.download_bytes_per_second.tolist()
        self._upload: list[float] = self.upload_bytes_per_second.tolist()
        # A log-normal factor exp(sigma z - sigma^2 / 2) has mean 1 and variance exp(sigma^2) - 1.
        self._sigma = math.sqrt(math.log1p(self.jitter * self.jitter))

    def __len__(self) -> int:
        return self.clients

    def duration(
        self, client: int, job: int, steps: int, bytes_down: int, bytes_up: int, work: float | None = None
    ) -> float:
        """Seconds from the sending of an order to the arrival of its update.

        Parameters
        ----------
        client, job
            The key of the order.
        steps
            Local steps, at least 1.
        bytes_down, bytes_up
            Sizes of the order and of the update.
        work
            How many plain steps these are worth; None for as many.
        """
        seconds = self._busy(client, steps, work)
        if self._sigma:
            z = _standard_normal(_uniform(self.seed, "jitter", client, job))
            seconds *= math.exp(self._sigma * (z - 0.5 * self._sigma))
        return self._startup[client] + seconds + bytes_down / self._download[client] + bytes_up / self._upload[client]

    def _busy(self, client: int, steps: int, work: float | None) -> float:
        """Seconds of an order's work, without jitter."""
        if work is None or self.measured:
            return self._order[client] + steps * self._step[client]
        return self._order[client] * (work / steps) + work * self._step[client]

    def refuse(
        self, client: int, steps: int, bytes_down: float, bytes_up: float, fault: str, work: float | None = None
    ) -> ConfigError:
        """The error for an order whose time is none of a run; it names the key that most of its seconds come from."""
        parts = {
            "devices.startup": self._startup[client],
            "the seconds of an order's work (devices.kind and its keys)": self._busy(client, steps, work),
            "devices.download_bytes_per_second": bytes_down / self._download[client],
            "devices.upload_bytes_per_second": bytes_up / self._upload[client],
        }
        key = max(parts, key=lambda name: parts[name])
        return ConfigError(f"devices, client {client}: {fault}; nearly all of it is from {key}: change that")

    def refuse_endless(self, clients: Sequence[int], bytes_down: float, bytes_up: float) -> None:
        """Refuse devices that take more than `LONGEST` seconds for an order of one step.

        Parameters
        ----------
        clients
            Who will be given orders.
        bytes_down, bytes_up
            The least that an order and an update have.

        Raises
        ------
        ConfigError
            If there is one; names the client, the seconds and the key.
        """
        with np.errstate(over="ignore"):
            seconds = self.nominal_seconds(1, bytes_down, bytes_up)
        for client in clients:
            if not seconds[client] <= LONGEST:
                raise self.refuse(
                    client, 1, bytes_down, bytes_up, f"an order takes {seconds[client]:.3g} s, at most 2^53 are counted"
                )

    def outage(self, client: int, job: int, duration: float) -> Outage | None:
        """When the device goes away during an order that would take `duration` seconds; None if it stays."""
        if not self.dropout or _uniform(self.seed, "dropout", client, job, 0) >= self.dropout:
            return None
        after = _uniform(self.seed, "dropout", client, job, 1) * duration
        away = -math.log(_uniform(self.seed, "dropout", client, job, 2)) * self.away_seconds
        return Outage(after, away)

    def nominal_seconds(
        self, steps: ArrayLike, bytes_down: ArrayLike = 0, bytes_up: ArrayLike = 0
    ) -> NDArray[np.float64]:
        """Seconds of an order of plain steps without jitter, for each client.

        `steps` and sizes are one number, or one per client.
        """
        work = self.seconds_per_order + np.asarray(steps) * self.seconds_per_step
        down = np.asarray(bytes_down) / self.download_bytes_per_second
        up = np.asarray(bytes_up) / self.upload_bytes_per_second
        seconds: NDArray[np.float64] = self.startup_seconds + work + down + up
        return seconds

    def _check(self) -> None:
        for name in ("startup_seconds", "seconds_per_order", "seconds_per_step"):
            values = getattr(self, name)
            _refuse(name, values, ~(np.isfinite(values) & (values >= 0)), "must be a finite number of 0 or more")
            key = "devices.startup" if name == "startup_seconds" else name
            _refuse(key, values, values > LONGEST, "must be at most 2^53: no clock counts longer times to the second")
        for name in ("download_bytes_per_second", "upload_bytes_per_second"):
            values = getattr(self, name)
            _refuse(name, values, ~(values > 0), "must be positive")
        idle = self.startup_seconds + self.seconds_per_order + self.seconds_per_step
        _refuse("an order's time", idle, idle <= 0, "must be positive")
        if not 0 <= self.jitter * self.jitter < math.inf:
            raise ConfigError(f"devices.jitter = {self.jitter}: must be a finite number of 0 or more, with its square")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"devices.dropout = {self.dropout}: must be at least 0 and less than 1")
        if not 0 <= self.away_seconds <= LONGEST:
            raise ConfigError(f"devices.away = {self.away_seconds}: must be a number from 0 to 2^53")
        if self.labels is not None and len(self.labels) != self.clients:
            raise ConfigError(f"devices: {len(self.labels)} labels for {self.clients} clients")


def _uniform(seed: int, purpose: str, *numbers: int) -> float:
    """A draw from the open interval (0, 1): a stream of one number needs no generator, which costs 10 microseconds."""
    # 52 bits and a half fit a float exactly, so that neither 0 nor 1 can come out.
    return ((derive_seed(seed, purpose, *numbers) >> 11) + 0.5) * 2.0**-52


def _per_client(name: str, values: ArrayLike, clients: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0:
        return np.full(clients, array)
    if array.shape != (clients,):
        raise ConfigError(f"devices: {name} has shape {array.shape}, expected one number for each of {clients} clients")
    return array.copy()


def _refuse(name: str, values: NDArray[np.float64], wrong: NDArray[np.bool_], rule: str) -> None:
    if wrong.any():
        client = int(np.flatnonzero(wrong)[0])
        raise ConfigError(f"devices, client {client}: {name} is {values[client]:g}, {rule}")
