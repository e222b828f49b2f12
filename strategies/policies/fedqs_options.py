"""FedQS's weights and policy with their options, for its recipe and for free compositions."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.core.kinds import ClientPolicy
from strategies.policies.fedqs import Adaptivity, FedQSPolicy, GlobalStepName, MeasureName
from strategies.weightings.fedqs import FrequencyCap

_CODE = "authors' code"

RateChange = Annotated[float, Param("change of the learning rate per unit of F", ge=0, le=0.1, source=_CODE)]
MomentumMin = Annotated[float, Param("least momentum of an unbiased client", ge=0, lt=1, source=_CODE)]
MomentumGain = Annotated[float, Param("gain of the momentum", ge=0, source=_CODE)]
MomentumCap = Annotated[float, Param("most momentum beyond m0", ge=0, lt=1, source=_CODE)]
AdaptMomentum = Annotated[bool, Param("set momentum by client type; otherwise it stays training.momentum")]
RateMin = Annotated[float, Param("least learning rate after a change", gt=0, source=_CODE)]
RateMax = Annotated[float, Param("largest learning rate after a change", gt=0, source=_CODE)]
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


def fedqs_policy(
    *,
    a: RateChange = 0.002,
    m0: MomentumMin = 0.1,
    k: MomentumGain = 2.0,
    momentum_cap: MomentumCap = 0.4,
    momentum: AdaptMomentum = True,
    frequency_cap: FrequencyCap = 9.0,
    rate_min: RateMin = 0.001,
    rate_max: RateMax = 0.2,
    spread: Spread = 30.0,
    small_class: SmallClass = 10.0,
    fbar: MeanFrequency = "active",
    similarity: Similarity = "angle",
    lg_source: GlobalStep = "previous",
    sbc_data: ClassData = "holdout",
) -> ClientPolicy:
    """FedQS's typing: clients learn how fast and how similar they are, and adapt rate and momentum."""
    adaptivity = Adaptivity(a, m0, k, momentum_cap, momentum, frequency_cap, rate_min, rate_max, spread, small_class)
    judged_on = 20 if sbc_data == "train20" else 0
    return FedQSPolicy(adaptivity, similarity=similarity, fbar=fbar, lg_source=lg_source, judged_on=judged_on)
