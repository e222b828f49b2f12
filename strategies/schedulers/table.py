"""Schedulers by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable

from strategies.core.kinds import Scheduler
from strategies.schedulers import Asynchronous, Buffered, Compass, LagTolerant, Pooled, Queued, Synchronous, Tiered

SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "synchronous": Synchronous,
    "asynchronous": Asynchronous,
    "buffered": Buffered,
    "compass": Compass,
    "pooled": Pooled,
    "lag-tolerant": LagTolerant,
    "tiered": Tiered,
    "queued": Queued,
}
