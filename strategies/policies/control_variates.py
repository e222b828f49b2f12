"""The server's half of control variates: it keeps the mean direction c that clients correct their own by.

c, of shape [P], starts at 0. A server step adds the reported changes ``dc_i = c_i+ - c_i``::

    c <- c + (1/N) sum_i dc_i     share = "clients", N clients known: c is the mean of all c_i (SCAFFOLD);
                                  in a head, of those that are not known to lack its task
    c <- c + sum_i p_i dc_i       share = "weights", p_i the update's weight in the aggregation (FedAC)

Down: c, as the vector ``variate``; absent for 0. Up: ``dc_i``, as the vector ``variate_change``. The client's half is
:mod:`clients.policies.control_variates`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from torch import Tensor

from fedmtl.components import Param
from fedmtl.parameters import weighted_sum
from fedmtl.protocol import GlobalModel, TrainSettings, Update
from fedmtl.restoring import tensor_or_none
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger

_log = logging.getLogger(__name__)


class ControlVariates(ClientPolicy):
    """Control variates take the clients' drift out of their steps (SCAFFOLD, FedAC).

    Examples
    --------
    One of four clients has reported. The next order carries the mean of all variates, of which three are zeros:

    >>> import torch
    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.policies import ControlVariates
    >>> old, new = toy_model([0.0, 0.0]), toy_model([1.0, 1.0], version=1)
    >>> policy = ControlVariates()
    >>> policy.prepare(old, seed=0)
    >>> step = Step.of(old, [toy_update(0, vectors={"variate_change": torch.tensor([4.0, -8.0])})], clients=range(4))
    >>> policy.on_aggregated(old, new, step.updates, step.ledger)
    >>> policy.instruct(1, TrainSettings(), new, step.ledger).vectors
    {'variate': tensor([ 1., -2.])}
    """

    name = "control-variates"
    no_rule = (
        "what clients correct their steps by is a sum over all that they ever reported, into which a single liar comes "
        "unguarded"
    )
    reported = ("variate_change",)

    def __init__(
        self, *, share: Annotated[Literal["clients", "weights"], Param("what an update's change counts")] = "clients"
    ) -> None:
        self.needs = {
            "every-update": "where an update is dropped, the change of its client's variate is lost; "
            "keep late updates (late = 'keep') and turn no stale ones down (max_staleness)",
            "local-steps": "a client's variate is its update divided by its steps",
        }
        self.share = share
        self._variate: Tensor | None = None
        self._sum: Tensor | None = None  # of all c_i, where c is their mean
        self._lacking: list[set[int]] = []  # for each task, clients that do not own it
        self._weights: tuple[float, ...] = ()
        self._settings: TrainSettings | None = None

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start at ``c = 0``."""
        self._variate = self._sum = None
        self._lacking = [set() for _ in model.layout.heads]

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, and c."""
        if settings is not self._settings:
            self._settings = settings
            _log_deviations(settings)
        return Instruction(settings, {}, {} if self._variate is None else {"variate": self._variate})

    def on_weighted(self, updates: Sequence[Update], weights: Sequence[float]) -> None:
        """Remember the weights for the step's end."""
        self._weights = tuple(weights)

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """Add the changes to c."""
        changes = [update.vectors["variate_change"] for update in updates]
        nothing = before.vector.new_zeros(before.vector.shape)
        # New vectors: orders that were sent with the old one keep it.
        if self.share == "weights":
            start = nothing if self._variate is None else self._variate
            self._variate = weighted_sum(changes, self._weights, start)
            return
        start = nothing if self._sum is None else self._sum
        self._sum = weighted_sum(changes, (1.0,) * len(changes), start)
        self._variate = self._mean(updates, before, len(ledger.known))

    def _mean(self, updates: Sequence[Update], before: GlobalModel, clients: int) -> Tensor:
        """The mean of all c_i, in each head over the clients that may own it."""
        assert self._sum is not None
        for update in updates:
            for task, lacking in enumerate(self._lacking):
                if task not in update.tasks:
                    lacking.add(update.client)
        mean = self._sum / clients
        for head, lacking in zip(before.layout.heads, self._lacking, strict=True):
            if lacking:
                mean[head] *= clients / max(1, clients - len(lacking))
        return mean

    def state_dict(self) -> dict[str, Any]:
        """The mean c and the sum of all c_i (None at the start), and who lacks which task."""
        return {"variate": self._variate, "sum": self._sum, "lacking": [sorted(clients) for clients in self._lacking]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._variate, self._sum = tensor_or_none(state["variate"]), tensor_or_none(state["sum"])
        self._lacking = [{int(client) for client in clients} for clients in state["lacking"]]


def _log_deviations(settings: TrainSettings) -> None:
    """Say where clients' variates are not the mean gradients that the theory takes them for."""
    if settings.momentum > 0:
        factor = 1.0 / (1.0 - settings.momentum)
        _log.warning("control variates presume SGD without momentum: they will be up to %.3g times too long", factor)
    if settings.clip > 0:
        _log.info("control variates are means of gradients clipped to norm %g", settings.clip)
