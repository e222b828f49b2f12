"""The server's half of control variates: it keeps the mean direction c that clients correct their own by.

The client's half is :mod:`clients.adaptation.control_variates`. c, of shape [P], starts at 0 (and is then not sent);
it goes down with every order as the vector ``variate``. A server step adds the reported changes ``dc_i = c_i+ - c_i``:

    c <- c + (1/N) sum_i dc_i     share = "clients", N clients known: c is the mean of all c_i (SCAFFOLD)
    c <- c + sum_i p_i dc_i       share = "weights", p_i the update's weight in the aggregation (FedAC)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from fedmtl.parameters import weighted_sum
from fedmtl.protocol import GlobalModel, TrainSettings, Update
from strategies.ledger import Ledger
from strategies.parts import ClientPolicy, Instruction


class ControlVariates(ClientPolicy):
    """Sends c, and follows the clients' variates.

    Parameters
    ----------
    share
        What an update's change counts: one over the clients known, or the update's weight.
    """

    name = "control-variates"
    reported = ("variate_change",)

    def __init__(self, share: Literal["clients", "weights"] = "clients") -> None:
        self.needs = {"every-update": "where an update is dropped, the change of its client's variate is lost"}
        self.share = share
        self._variate: Tensor | None = None
        self._weights: tuple[float, ...] = ()

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start at ``c = 0``."""
        self._variate = None

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, and c."""
        return Instruction(settings, {}, {} if self._variate is None else {"variate": self._variate})

    def on_weighted(self, updates: Sequence[Update], weights: Sequence[float]) -> None:
        """Remember the weights for the step's end."""
        self._weights = tuple(weights)

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """Add the changes to c."""
        weights = self._weights if self.share == "weights" else (1.0 / len(ledger.known),) * len(updates)
        # A new vector: orders that were sent with the old one keep it.
        start = before.vector.new_zeros(before.vector.shape) if self._variate is None else self._variate
        self._variate = weighted_sum([update.vectors["variate_change"] for update in updates], weights, start)

    def state_dict(self) -> dict[str, Any]:
        """c, or None at the start."""
        return {"variate": self._variate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._variate = state["variate"]
