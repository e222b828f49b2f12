"""Which clients are busy and which are idle, and who is next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import Assignment
from fedmtl.randomness import derive_seed
from strategies.selectors.base import Selector


class Roster:
    """The clients that are there. Every operation costs O(1) per client that it moves, whatever the number of clients.

    Parameters
    ----------
    limit
        How many clients may be busy at once, the next one being drawn at random from the idle ones; None: no limit,
        and idle clients are next in the order in which they became idle.
    selector
        Chooses in place of chance, as many at a time as the limit, so that its work is shared by as many orders. Its
        state is its owner's to save.

    Attributes
    ----------
    busy
        Clients that were assigned and are not idle again.

    Raises
    ------
    ConfigError
        If the limit is below 1.

    Examples
    --------
    Two of three clients may be busy at once; where one is lost, the third takes its place.

    >>> from strategies.schedulers.roster import Roster
    >>> roster = Roster(limit=2)
    >>> roster.free(range(3))
    >>> roster.fill()
    (Assignment(client=2, steps=None), Assignment(client=1, steps=None))
    >>> roster.remove(1)
    >>> roster.fill()
    (Assignment(client=0, steps=None),)
    """

    def __init__(self, limit: int | None, selector: Selector | None = None) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"at most {limit} clients busy at once: at least 1 must be")
        self.limit = limit
        self.seed = 0
        self.busy: set[int] = set()
        self._idle: list[int] = []
        self._place: dict[int, int] = {}  # client -> its place in _idle
        self._draws = 0
        self._selector = selector
        self._chosen: list[int] = []  # by the selector, last first, and not taken yet

    @property
    def empty(self) -> bool:
        """Whether no client is there."""
        return not self.busy and not self._idle

    def free(self, clients: Iterable[int]) -> None:
        """These clients are there and idle now."""
        for client in clients:
            self.busy.discard(client)
            if client not in self._place:
                self._place[client] = len(self._idle)
                self._idle.append(client)
                if self._selector is not None:
                    self._selector.free((client,))

    def remove(self, client: int) -> None:
        """The client is gone, whatever it was doing."""
        self.busy.discard(client)
        if client in self._place:
            self._take(self._place[client])

    def fill(self) -> tuple[Assignment, ...]:
        """Make idle clients busy, as many as the limit allows."""
        if self.limit is None:
            chosen = self._idle
            self._idle, self._place = [], {}
        else:
            chosen = []
            while self._idle and len(self.busy) + len(chosen) < self.limit:
                chosen.append(self._take(self._draw(self.limit)))
        self.busy.update(chosen)
        return tuple(Assignment(client) for client in chosen)

    def _draw(self, limit: int) -> int:
        """Place of the next client."""
        if self._selector is None:
            self._draws += 1
            return derive_seed(self.seed, "selection", self._draws - 1) % len(self._idle)
        while True:
            if not self._chosen:
                self._chosen = self._selector.choose(limit)[::-1]
            # One that was chosen earlier may have gone since.
            if (place := self._place.get(self._chosen.pop())) is not None:
                return place

    def _take(self, place: int) -> int:
        """Remove from the idle clients; the last one moves to the gap, so that nothing is shifted."""
        client, last = self._idle[place], self._idle.pop()
        if last != client:
            self._idle[place] = last
            self._place[last] = place
        del self._place[client]
        if self._selector is not None:
            self._selector.leave(client)
        return client

    def state_dict(self) -> dict[str, Any]:
        """Clients, and the number of draws so far or those that were chosen ahead."""
        return {
            "busy": sorted(self.busy),
            "idle": list(self._idle),
            "draws": self._draws,
            "chosen": list(self._chosen),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.busy = {int(client) for client in state["busy"]}
        self._idle = [int(client) for client in state["idle"]]
        self._place = {client: place for place, client in enumerate(self._idle)}
        self._draws = int(state["draws"])
        self._chosen = [int(client) for client in state["chosen"]]
