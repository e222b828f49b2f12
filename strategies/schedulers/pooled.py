"""DeFedAvg's scheduler: a server step draws from everything that has arrived and was not drawn yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmtl.protocol import GlobalModel, JobKey
from fedmtl.randomness import derive_seed
from strategies.schedulers.buffered import Buffered


class Pooled(Buffered):
    """As :class:`Buffered` with at most one aggregation per tick, but K of the waiting updates are drawn at random.

    An update waits until it is drawn, each with the same probability in a step, however long it has waited.

    Parameters
    ----------
    size
        K, the updates of an aggregation.
    concurrency
        How many clients are busy at once; None: all.
    tick
        Seconds after which the server returns to a pool that still holds K updates.
    """

    def __init__(self, size: int = 10, *, concurrency: int | None = None, tick: float = 1.0) -> None:
        super().__init__(size, concurrency=concurrency, buffer="one_per_tick", clock="tick", tick=tick)
        self._seed = 0
        self._draws = 0

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the first version and the seed of the draws."""
        super().prepare(model, seed)
        self._seed = seed

    def _draw(self) -> tuple[JobKey, ...]:
        """K of the pool, or all if there are fewer; the last one moves to each gap, so that nothing is shifted."""
        taken = []
        for _ in range(min(self._size, len(self._buffer))):
            place = derive_seed(self._seed, "pool", self._draws) % len(self._buffer)
            self._draws += 1
            self._buffer[place], self._buffer[-1] = self._buffer[-1], self._buffer[place]
            taken.append(self._buffer.pop())
        return tuple(taken)

    def state_dict(self) -> dict[str, Any]:
        """The pool, and the number of draws so far."""
        return super().state_dict() | {"draws": self._draws}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        super().load_state_dict(state)
        self._draws = int(state["draws"])
