"""What a strategy has seen of real clients, so that a fleet that is made anew can take up where an older one ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedmtl.protocol import Arrival, Event, Joined, Lost

STOPPED = "the server was stopped"


class Dispatched:
    """Which clients the strategy takes to be there, and which of them owe it the answer to an order.

    Nodes are lost and found while events wait to be served, so this is not what the fleet knows itself.

    Examples
    --------
    Of two clients one had an order when the server was stopped. Now both are there again, and a new one:

    >>> from strategies.flower.dispatched import Dispatched
    >>> dispatched = Dispatched()
    >>> dispatched.begins([0, 1])
    >>> dispatched.ordered(1)
    >>> [(type(event).__name__, event.client) for event in dispatched.after_a_stop(connected=[0, 1, 2], now=60.0)]
    [('Lost', 1), ('Joined', 1), ('Joined', 2)]
    """

    def __init__(self) -> None:
        self._present: set[int] = set()
        self._owing: set[int] = set()

    def begins(self, clients: Iterable[int]) -> None:
        """These clients are there at the start."""
        self._present.update(clients)

    def ordered(self, client: int) -> None:
        """The client has an order."""
        self._owing.add(client)

    def is_news(self, event: Event) -> bool:
        """Note an event that is to be served next; False if the strategy knows it, and it must not be served."""
        match event:
            case Arrival(update=update):
                self._owing.discard(update.client)
            case Lost(client=client):
                missed = client in self._present or client in self._owing
                self._present.discard(client)
                self._owing.discard(client)
                return missed
            case Joined(client=client):
                new = client not in self._present
                self._present.add(client)
                return new
        return True

    def after_a_stop(self, connected: Iterable[int], now: float) -> list[Event]:
        """What a strategy has to hear first: whoever had an order is lost, or is not there; the others come."""
        here = set(connected)
        lost = (self._present - here) | self._owing
        # Those that are away first: as soon as others are lost, a round may begin with everybody who is free.
        gone = sorted(lost, key=lambda client: (client in here, client))
        joined = sorted(here - (self._present - lost))
        return [*(Lost(now, client, STOPPED) for client in gone), *(Joined(now, client) for client in joined)]

    def state_dict(self) -> dict[str, Any]:
        """Who is there, and who has an order."""
        return {"present": sorted(self._present), "owing": sorted(self._owing)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._present, self._owing = set(map(int, state["present"])), set(map(int, state["owing"]))
