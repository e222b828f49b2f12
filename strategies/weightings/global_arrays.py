"""A fault for its study: what an update says of itself is kept by client, and not with the update."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedmtl.protocol import Update
from strategies.ledger import Ledger
from strategies.parts import Step, Weighting


class Said(NamedTuple):
    """What a client's newest job says: its number, the version it began with, the feedback bit and the similarity."""

    job: int
    version: int
    feedback: bool
    similarity: float | None


class GlobalArrays(Weighting):
    """Another rule is shown updates with the bit and the similarity of their client's newest job, finished or not.

    So the code of FedQS's authors has it: both are written into one array for all clients when a job begins, and every
    server step clears all the bits. A bit counts only if the client began its newest job after the last step, so as a
    rule only if that job is not the one that is being aggregated. With their 100 clients and K = 10, and updates that
    are overwritten, 48.7 % of the updates can have a bit. The similarities of jobs that have begun enter the mean, too.

    Parameters
    ----------
    base
        Gives the weights.
    """

    only_simulated = "carry_meta = 'global_arrays' counts what clients have not sent yet"

    def __init__(self, base: Weighting) -> None:
        self.base = base
        self.needs_bases = base.needs_bases
        self._newest: dict[int, Said] = {}

    def foresee(self, update: Update, ledger: Ledger) -> None:
        """Write the arrays."""
        said = Said(update.job, update.base_version, update.feedback, update.similarity)
        if self._newest.get(update.client) != said:
            self._newest[update.client] = said
            ledger.received(update)

    def look(self, step: Step) -> None:
        """Let the base look."""
        self.base.look(step)

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """The base's weights for updates that say what the arrays say."""
        return self.base.weights([self._as_known(update, version) for update in updates], version, ledger)

    def _as_known(self, update: Update, version: int) -> Update:
        said = self._newest[update.client]
        return dataclasses.replace(
            update, feedback=said.feedback and said.version == version, similarity=said.similarity
        )

    def state_dict(self) -> dict[str, Any]:
        """The base's state, and the arrays."""
        return {"base": self.base.state_dict(), "newest": [[client, *said] for client, said in self._newest.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.base.load_state_dict(state["base"])
        self._newest = {int(client): Said(*said) for client, *said in state["newest"]}
