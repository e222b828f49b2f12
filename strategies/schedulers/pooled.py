"""DeFedAvg's scheduler: a server step draws from everything that has arrived and was not drawn yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmtl.protocol import GlobalModel, JobKey
from fedmtl.randomness import derive_seed
from strategies.schedulers.buffered import Buffered
from strategies.schedulers.options import BufferSize, Concurrency, Tick


class Pooled(Buffered):
    """K of the waiting updates, drawn at random, make a server step, at most once per tick (DeFedAvg).

    An update waits until it is drawn, each with the same probability in a step, however long it has waited. All else is
    as in :class:`Buffered`.

    Examples
    --------
    Of four updates two are drawn in this tick, and the others in the next:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.schedulers import Pooled
    >>> scheduler = Pooled(buffer_size=2)
    >>> scheduler.prepare(toy_model([0.0]), seed=0)
    >>> orders = scheduler.begin(range(4), now=0.0).assignments
    >>> for client in range(4):
    ...     decision = scheduler.on_update(toy_update(client), now=1.0)
    >>> [key.client for key in scheduler.on_deadline(1.0).aggregate], scheduler.next_deadline()
    ([1, 2], 2.0)
    >>> [key.client for key in scheduler.on_deadline(2.0).aggregate]
    [3, 0]
    """

    def __init__(self, *, buffer_size: BufferSize = 10, concurrency: Concurrency = None, tick: Tick = 1.0) -> None:
        super().__init__(
            buffer_size=buffer_size, concurrency=concurrency, buffer="one_per_tick", clock="tick", tick=tick
        )
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
