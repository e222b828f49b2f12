"""Who trains next, and when the server aggregates."""

from strategies.schedulers.asynchronous import Asynchronous
from strategies.schedulers.buffered import Buffered
from strategies.schedulers.compass import Compass
from strategies.schedulers.lag_tolerant import LagTolerant
from strategies.schedulers.pooled import Pooled
from strategies.schedulers.queued import Queued
from strategies.schedulers.synchronous import Synchronous
from strategies.schedulers.tiered import Tiered

__all__ = ["Asynchronous", "Buffered", "Compass", "LagTolerant", "Pooled", "Queued", "Synchronous", "Tiered"]
