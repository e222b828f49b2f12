"""Devices described: the numbers of a display."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.devices.profile import Devices


@dataclass(frozen=True)
class Bin:
    """Clients whose orders take from `low` up to `high` seconds; the last bin of a histogram includes its upper end."""

    low: float
    high: float
    clients: int


@dataclass(frozen=True)
class Group:
    """Clients with the same device, and the median seconds of their orders."""

    label: str
    clients: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """The devices of a run.

    Attributes
    ----------
    rows
        A name and a text each: fastest, median, mean and slowest order, and what else the profile models.
    histogram
        Bins of equal width, or of equal ratio where the slowest device is more than a hundred times the fastest.
    groups
        Named devices, fastest first; empty where they have no names.
    """

    rows: tuple[tuple[str, str], ...]
    histogram: tuple[Bin, ...]
    groups: tuple[Group, ...]


def describe(devices: Devices, steps: int, bytes_down: int = 0, bytes_up: int = 0, bins: int = 10) -> Summary:
    """Summary of the seconds that an order of so many steps takes.

    Parameters
    ----------
    devices
        The devices.
    steps
        Local steps of a typical order.
    bytes_down, bytes_up
        Traffic of a typical order.
    bins
        Bins of the histogram.
    """
    seconds = devices.nominal_seconds(steps, bytes_down, bytes_up)
    fastest, slowest = float(seconds.min()), float(seconds.max())
    rows = [
        ("clients", f"{len(devices):,}"),
        ("fastest", f"{fastest:.4g} s"),
        ("median", f"{np.median(seconds):.4g} s"),
        ("mean", f"{seconds.mean():.4g} s"),
        ("slowest", f"{slowest:.4g} s"),
        ("slowest / fastest", f"{slowest / fastest:.4g}"),
    ]
    if devices.jitter:
        rows.append(("jitter", f"{devices.jitter:.3g} of an order's work"))
    for name, bandwidth in (("down", devices.download_bytes_per_second), ("up", devices.upload_bytes_per_second)):
        if np.isfinite(bandwidth).any():
            rows.append((f"bandwidth {name}, median", f"{np.median(bandwidth):.4g} bytes/s"))
    if devices.dropout:
        rows.append(("lost orders", f"{devices.dropout:.3g}, away for {devices.away_seconds:.4g} s on average"))
    return Summary(tuple(rows), _histogram(seconds, bins), _groups(devices, seconds))


def _histogram(seconds: NDArray[np.float64], bins: int) -> tuple[Bin, ...]:
    low, high = float(seconds.min()), float(seconds.max())
    if math.isclose(low, high):
        return (Bin(low, high, len(seconds)),)
    edges = np.geomspace(low, high, bins + 1) if high > 100 * low else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high  # rounding of the ends must not leave a client out
    counts, _ = np.histogram(seconds, edges)
    return tuple(Bin(float(a), float(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True))


def _groups(devices: Devices, seconds: NDArray[np.float64]) -> tuple[Group, ...]:
    if devices.labels is None:
        return ()
    labels, which = np.unique(np.asarray(devices.labels), return_inverse=True)
    groups = [
        Group(str(label), int((which == k).sum()), float(np.median(seconds[which == k])))
        for k, label in enumerate(labels)
    ]
    return tuple(sorted(groups, key=lambda group: (group.seconds, group.label)))
