"""What clients say of their data, held against what is known, or against what they and the others said."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Any

from fedmtl.protocol import Update
from fedmtl.update_contract import Claim

MOST = 100
"""How many times the median of all clients' examples a client may claim."""

KnownClaim = Callable[[int], Claim | None]
"""From a client to its true examples and tasks; None where nobody knows them."""


class Claims:
    """Every client's examples and tasks.

    Where they are known, as in a simulation, a claim must be true. Of a real client the first claim stands: one that
    differs later is not believed, and neither is one of more than 100 times the median of all clients' examples (of an
    even number of clients the larger of the two in the middle). Nothing is capped: who claims too much is turned down.

    Parameters
    ----------
    known
        What is known of a client; None if nobody knows anything.

    Examples
    --------
    Three clients have ten examples each, and a fourth says that it has a billion:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.claims import Claims
    >>> claims = Claims()
    >>> for update in (*(toy_update(client) for client in range(3)), toy_update(3, examples=10**9)):
    ...     print(claims.differs(update) or claims.excess(update))
    None
    None
    None
    claims 1000000000 examples, the median of 4 clients is 10
    >>> claims.differs(toy_update(0, examples=11))
    'claims 11 examples and the tasks (0,), said 10 and (0,) first'
    """

    def __init__(self, known: KnownClaim | None = None) -> None:
        self._known = known
        self._first: dict[int, Claim] = {}
        self._examples: list[int] = []  # of the first claims, ascending

    def differs(self, update: Update) -> str | None:
        """Whether the claim is not true, or not what the client said first; a first claim is noted."""
        said = Claim(update.examples, update.tasks)
        if self._known is not None and (true := self._known(update.client)) is not None:
            return None if said == true else _told(said, "has", true, "")
        first = self._first.get(update.client)
        if first is None:
            self._first[update.client] = said
            bisect.insort(self._examples, update.examples)
            return None
        return None if said == first else _told(said, "said", first, " first")

    def excess(self, update: Update) -> str | None:
        """Whether the claim, which was noted, is far beyond the others'."""
        if not self._examples:
            return None
        median = self._examples[len(self._examples) // 2]
        if update.examples <= MOST * median:
            return None
        return f"claims {update.examples} examples, the median of {len(self._examples)} clients is {median}"

    def state_dict(self) -> dict[str, Any]:
        """The first claims."""
        return {"first": [[client, claim.examples, list(claim.tasks)] for client, claim in self._first.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._first = {int(c): Claim(int(n), tuple(map(int, tasks))) for c, n, tasks in state["first"]}
        self._examples = sorted(claim.examples for claim in self._first.values())


def _told(said: Claim, verb: str, true: Claim, end: str) -> str:
    return f"claims {said.examples} examples and the tasks {said.tasks}, {verb} {true.examples} and {true.tasks}{end}"
