"""A buffer that is filled by a sweep over the clients."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import JobKey
from strategies.schedulers.buffered import Buffered


class Swept(Buffered):
    """Updates that arrive at one instant are buffered by their clients' numbers, not as their orders were sent.

    So the tick clock of FedQS's authors has it, which asks all clients in turn in every tick. All else is as in
    :class:`~strategies.schedulers.buffered.Buffered`, whose parameters these are; the clock must be the tick's.
    """

    def __init__(self, size: int = 10, **options: Any) -> None:
        if options.get("clock") != "tick":
            raise ConfigError("tick_order = 'client' is an order within a tick: set clock = 'tick'")
        super().__init__(size, **options)
        self._instant: float | None = None
        self._first = 0  # where the updates of the instant begin

    def _place(self, key: JobKey, now: float) -> int:
        held = len(self._buffer)
        if self._instant != now:
            self._instant, self._first = now, held
        return bisect.bisect(self._buffer, key, lo=min(self._first, held))

    def state_dict(self) -> dict[str, Any]:
        """The buffer's state, and where the instant begins."""
        return super().state_dict() | {"instant": self._instant, "first": self._first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        super().load_state_dict(state)
        self._instant, self._first = state["instant"], int(state["first"])
