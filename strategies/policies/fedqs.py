"""The server's half of FedQS: it tells each client how fast and how similar it is among the others.

The client's half, which types itself and adapts, is :mod:`clients.policies.fedqs`. What goes down with an order:

========================  =============================================================================================
term                      meaning
========================  =============================================================================================
``frequency``             f_i, the client's share of all aggregated updates
``frequency_mean``        f_bar; absent before the first aggregation
``similarity_mean``       s_bar, the mean of the latest similarities when the server last aggregated; absent before any
========================  =============================================================================================

Every order has the adaptation's parameters (:class:`Adaptivity`), the measure ``similarity``, the flag ``since_last``
(whether the client is to form L_g itself) and the number ``judged_on`` as constants. The vector ``global_step`` is the
pseudo-global gradient ``L_g = w[t] - w[t-1]``; absent at the first version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel, TrainSettings, Update
from fedmtl.similarity import SimilarityName
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger

MeasureName = SimilarityName | Literal["ref_tensors"]
"""A measure of :func:`fedmtl.similarity.dissimilarity`, or :func:`fedmtl.similarity.tensor_angles`."""

GlobalStepName = Literal["previous", "since_last", "ref_previous_model"]


@dataclass(frozen=True)
class Adaptivity:
    """How strongly clients adapt.

    Attributes
    ----------
    a
        Learning rate's change per unit of F.
    m0, k, momentum_cap
        Momentum ``m = m0 + min(k (1/G - 1), momentum_cap)``.
    adapt_momentum
        Whether momentum is set by the client's type; otherwise it stays the run's.
    frequency_cap
        Upper bound of ``F = f_bar / f_i``.
    rate_min, rate_max
        Bounds of a client's learning rate after a change.
    spread
        Spread of the class accuracies, in percentage points, from which on a slow client's bias is put down to its
        labels.
    small_class
        A class with fewer held-out examples has its accuracy halved.

    Raises
    ------
    ConfigError
        If the bounds of the learning rate cross, or momentum could reach 1.
    """

    a: float = 0.002
    m0: float = 0.1
    k: float = 2.0
    momentum_cap: float = 0.4
    adapt_momentum: bool = True
    frequency_cap: float = 9.0
    rate_min: float = 0.001
    rate_max: float = 0.2
    spread: float = 30.0
    small_class: float = 10.0

    def __post_init__(self) -> None:
        if self.rate_min > self.rate_max:
            raise ConfigError(f"rate_min = {self.rate_min} is above rate_max = {self.rate_max}")
        if self.m0 + self.momentum_cap >= 1:
            raise ConfigError(f"m0 + momentum_cap = {self.m0 + self.momentum_cap}: a momentum must stay below 1")


class FedQSPolicy(ClientPolicy):
    """Sends f_i, f_bar, s_bar and L_g.

    Parameters
    ----------
    adaptivity
        How strongly clients adapt.
    similarity
        The measure between L_g and a client's last update; all are larger for a client that is further off.
    fbar
        Mean of f over the clients with any aggregated update (``"active"``), or over all (``"all"``, which is 1/N).
    lg_source
        ``"previous"`` computes L_g once per version and sends it (4 bytes per parameter); ``"since_last"`` has each
        client subtract the model that it was sent last from the one it is sent now, for which it keeps that model.
        ``"ref_previous_model"`` sends ``w[t-1]`` itself in place of L_g, as the authors' code does by mistake.
    judged_on
        A slow and biased client is judged on its held-out examples (0), or on the first so many of each class that it
        trains on.
    """

    name = "fedqs"
    provides = frozenset({"feedback"})

    def __init__(
        self,
        adaptivity: Adaptivity | None = None,
        *,
        similarity: MeasureName = "angle",
        fbar: Literal["active", "all"] = "active",
        lg_source: GlobalStepName = "previous",
        judged_on: int = 0,
    ) -> None:
        self.fbar = fbar
        self.lg_source = lg_source
        self._constants = dataclasses.asdict(adaptivity or Adaptivity()) | {
            "similarity": similarity,
            "since_last": lg_source == "since_last",
            "judged_on": judged_on,
        }
        self._global_step: Tensor | None = None
        self._similarity_mean: float | None = None

    @property
    def constants(self) -> Mapping[str, Any]:
        """The adaptation's parameters, the measure, who forms L_g, and what a client is judged on."""
        return self._constants

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The terms and the vector of the module's table."""
        terms = {"frequency": ledger.frequency(client)}
        if (mean := self._frequency_mean(ledger)) is not None:
            terms["frequency_mean"] = mean
        if self._similarity_mean is not None:
            terms["similarity_mean"] = self._similarity_mean
        vectors = {} if self._global_step is None else {"global_step": self._global_step}
        return Instruction(settings, terms, vectors)

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """Form L_g and s_bar of the new version."""
        if self.lg_source == "previous":
            self._global_step = after.vector - before.vector
        elif self.lg_source == "ref_previous_model":
            self._global_step = before.vector
        self._similarity_mean = ledger.mean_similarity

    def _frequency_mean(self, ledger: Ledger) -> float | None:
        if self.fbar == "active" or not ledger.total:
            return ledger.mean_frequency
        return 1.0 / len(ledger.known)

    def state_dict(self) -> dict[str, Any]:
        """L_g and s_bar."""
        return {"global_step": self._global_step, "similarity_mean": self._similarity_mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._global_step = state["global_step"]
        self._similarity_mean = state["similarity_mean"]
