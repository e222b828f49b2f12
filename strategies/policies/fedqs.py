"""The server's half of FedQS: how fast and how similar each client is among the others.

The client's half, which types itself and adapts, is :mod:`clients.policies.fedqs`. What goes down with an order:

========================  =============================================================================================
term                      meaning
========================  =============================================================================================
``frequency``             f_i, the client's share of all aggregated updates
``frequency_mean``        f_bar; absent before the first aggregation
``similarity_mean``       s_bar, the mean of the latest similarities when the server last aggregated; absent before any
========================  =============================================================================================

The vector ``global_step`` is the pseudo-global gradient ``L_g = w[t] - w[t-1]``; absent at the first version. The
options that say how strongly clients adapt are constants, as are the measure ``similarity``, the flag ``since_last``
(whether the client is to form L_g itself) and the number ``judged_on``. What is unset (:data:`UNSET_RATES`) is settled
here, so that clients are sent the numbers in force, and updates are judged by the same.

What a client sends up are the terms ``similarity``, of which the ledger follows the mean, ``client_type`` and
``feedback``, where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

from torch import Tensor

from fedmtl.client_types import type_name
from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel, TrainSettings, Update
from fedmtl.restoring import number_or_none, tensor_or_none
from fedmtl.similarity import LARGEST, SimilarityName
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger
from strategies.weightings.fedqs import FrequencyCap

MeasureName = SimilarityName | Literal["ref_tensors"]
"""A measure of :func:`fedmtl.similarity.dissimilarity`, or that of :mod:`clients.policies.reference_faults`."""

GlobalStepName = Literal["previous", "since_last", "ref_previous_model"]


_CODE = "authors' code"

RateChange = Annotated[
    float | None,
    Param(
        "change of the learning rate per unit of F; unset: 0.02 times training.learning_rate (authors' code: 0.002, at "
        "0.1)",
        ge=0,
        le=0.1,
    ),
]
MomentumMin = Annotated[float, Param("least momentum of an unbiased client", ge=0, lt=1, source=_CODE)]
MomentumGain = Annotated[float, Param("gain of the momentum", ge=0, source=_CODE)]
MomentumCap = Annotated[float, Param("most momentum beyond m0", ge=0, lt=1, source=_CODE)]
AdaptMomentum = Annotated[bool, Param("set momentum by client type; otherwise it stays training.momentum")]
RateMin = Annotated[
    float | None,
    Param(
        "least learning rate after a change; unset: 0.01 times training.learning_rate (authors' code: 0.001, at 0.1)",
        gt=0,
    ),
]
RateMax = Annotated[
    float | None,
    Param(
        "largest learning rate after a change; unset: 2 times training.learning_rate (authors' code: 0.2, at 0.1)",
        gt=0,
    ),
]
Spread = Annotated[float, Param("spread of class accuracies of SBC-2, points", ge=0, le=100, source=_CODE)]
SmallClass = Annotated[float, Param("held-out examples below which a class counts half", ge=0, source=_CODE)]
MeanFrequency = Annotated[Literal["active", "all"], Param("clients that f_bar is the mean over", source=_CODE)]
Similarity = Annotated[
    MeasureName, Param("measure between L_g and L_i; ref_tensors: the code's, tensor by tensor", source=_CODE)
]
GlobalStep = Annotated[
    GlobalStepName,
    Param(
        "L_g: the last server step, sent; all since the client was last sent a model; or no step but the model before "
        "it (authors' code)"
    ),
]
ClassData = Annotated[
    Literal["holdout", "train20"],
    Param("class accuracies: on held-out examples, or on the first 20 of a class that are trained on (authors' code)"),
]


UNSET_RATES: Mapping[str, float] = MappingProxyType({"a": 0.02, "rate_min": 0.01, "rate_max": 2.0})
"""What ``a``, ``rate_min`` and ``rate_max`` are where they are unset, as multiples of the run's learning rate.

At the learning rate of the authors' code, 0.1, these are its numbers. As absolute numbers they would cut a rate of 1 to
0.2 in a client's first typed job.
"""


class FedQSPolicy(ClientPolicy):
    """FedQS's typing: clients learn how fast and how similar they are, and adapt rate and momentum.

    With ``lg_source = "previous"`` L_g is computed once per version and sent (4 bytes per parameter). With
    ``"since_last"`` each client subtracts the model that it was sent last from the one it is sent now, for which it
    keeps that model. ``"ref_previous_model"`` sends ``w[t-1]`` itself in place of L_g, as the authors' code does by
    mistake.

    Raises
    ------
    ConfigError
        If the bounds of the learning rate cross, also those that follow from the run's, or momentum could reach 1.

    Examples
    --------
    After a server step, what client 0 is sent: its share of the updates, the mean share, and the step.

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.policies import FedQSPolicy
    >>> old, new = toy_model([0.0, 0.0]), toy_model([1.0, -1.0], version=1)
    >>> step = Step.of(old, [toy_update(0), toy_update(1), toy_update(0, job=1), toy_update(0, job=2)])
    >>> policy = FedQSPolicy()
    >>> policy.on_aggregated(old, new, step.updates, step.ledger)
    >>> instruction = policy.instruct(0, TrainSettings(), new, step.ledger)
    >>> instruction.terms, instruction.vectors
    ({'frequency': 0.75, 'frequency_mean': 0.5}, {'global_step': tensor([ 1., -1.])})
    """

    name = "fedqs"
    provides = frozenset({"feedback"})
    follows = MappingProxyType({"similarity": LARGEST})
    measured = MappingProxyType({"similarity": (0.0, LARGEST), "client_type": (1.0, 5.0), "feedback": (0.0, 1.0)})

    def __init__(
        self,
        *,
        a: RateChange = None,
        m0: MomentumMin = 0.1,
        k: MomentumGain = 2.0,
        momentum_cap: MomentumCap = 0.4,
        momentum: AdaptMomentum = True,
        frequency_cap: FrequencyCap = 9.0,
        rate_min: RateMin = None,
        rate_max: RateMax = None,
        spread: Spread = 30.0,
        small_class: SmallClass = 10.0,
        fbar: MeanFrequency = "active",
        similarity: Similarity = "angle",
        lg_source: GlobalStep = "previous",
        sbc_data: ClassData = "holdout",
    ) -> None:
        if rate_min is not None and rate_max is not None and rate_min > rate_max:
            raise ConfigError(f"rate_min = {rate_min:g} is above rate_max = {rate_max:g}")
        if m0 + momentum_cap >= 1:
            raise ConfigError(f"m0 + momentum_cap = {m0 + momentum_cap}: a momentum must stay below 1")
        self.fbar = fbar
        self.lg_source = lg_source
        self.constants = {
            "a": a,
            "m0": m0,
            "k": k,
            "momentum_cap": momentum_cap,
            "adapt_momentum": momentum,
            "frequency_cap": frequency_cap,
            "rate_min": rate_min,
            "rate_max": rate_max,
            "spread": spread,
            "small_class": small_class,
            "similarity": similarity,
            "since_last": lg_source == "since_last",
            "judged_on": 20 if sbc_data == "train20" else 0,
        }
        self._unset = tuple(name for name in UNSET_RATES if self.constants[name] is None)
        self.constants = self._in_force(TrainSettings().learning_rate)
        self._global_step: Tensor | None = None
        self._similarity_mean: float | None = None

    def train_with(self, settings: TrainSettings) -> None:
        """Settle what is unset by the run's learning rate; clients are sent the numbers in force, as constants."""
        constants = self._in_force(settings.learning_rate)
        least, most = constants["rate_min"], constants["rate_max"]
        if least > most:
            name = next(name for name in self._unset if name != "a")
            raise ConfigError(
                f"strategy: rate_min = {least:g} is above rate_max = {most:g}, as {name} is unset and so "
                f"{UNSET_RATES[name]:g} times training.learning_rate = {settings.learning_rate:g}: set both"
            )
        self.constants = constants

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The terms and the vector of the module's table."""
        terms = {"frequency": ledger.frequency(client)}
        if (mean := self._frequency_mean(ledger)) is not None:
            terms["frequency_mean"] = mean
        if self._similarity_mean is not None:
            terms["similarity_mean"] = self._similarity_mean
        vectors = {} if self._global_step is None else {"global_step": self._global_step}
        return Instruction(settings, terms, vectors)

    def most(self, settings: TrainSettings) -> tuple[float, float]:
        """As far as clients adapt."""
        rate = max(settings.learning_rate, self.constants["rate_max"])
        largest = self.constants["m0"] + self.constants["momentum_cap"] if self.constants["adapt_momentum"] else 0.0
        return rate, max(settings.momentum, largest)

    def fault(self, update: Update) -> str | None:
        """Whether the type is none, or the bit is no bit."""
        number, bit = update.terms.get("client_type"), update.terms.get("feedback", 0.0)
        if number is not None and not type_name(number):
            return f"claims the client type {number:g}, which there is not"
        return None if bit in (0.0, 1.0) else f"claims the feedback bit {bit:g}"

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """Form L_g and s_bar of the new version."""
        if self.lg_source == "previous":
            self._global_step = after.vector - before.vector
        elif self.lg_source == "ref_previous_model":
            self._global_step = before.vector
        self._similarity_mean = ledger.mean("similarity")

    def _in_force(self, learning_rate: float) -> dict[str, Any]:
        """The constants with numbers for what is unset; a new table, for orders that were given hold the old one."""
        return {**self.constants, **{name: UNSET_RATES[name] * learning_rate for name in self._unset}}

    def _frequency_mean(self, ledger: Ledger) -> float | None:
        if self.fbar == "active" or not ledger.total:
            return ledger.mean_frequency
        return 1.0 / len(ledger.known)

    def state_dict(self) -> dict[str, Any]:
        """The global step L_g and the mean similarity s_bar."""
        return {"global_step": self._global_step, "similarity_mean": self._similarity_mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._global_step = tensor_or_none(state["global_step"])
        self._similarity_mean = number_or_none(state["similarity_mean"])
