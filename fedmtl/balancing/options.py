"""Options that several balancers have in common."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.settings import Balancing, TrainSettings

_W_MAX = 50.0

HeadWeight = Literal["unweighted", "weighted"]
"""Whether a head follows its own task's gradient, or that times the weight the task has in the shared gradient."""

HEADS = Param("whether the weights scale the heads")

OwnHeads = Annotated[HeadWeight, HEADS]
AuthorsHeads = Annotated[HeadWeight, HEADS.by("authors' code")]
"""Where the default is what the authors do."""

Clip = Annotated[float, Param("upper bound of the shared gradient's L2 norm; 0 for none", ge=0)]

TimesTasks = Annotated[bool, Param("whether d is multiplied by the number of tasks; in the authors' code: true")]
"""Where the authors bring a direction of a mean gradient's length to that of the sum of the losses."""

_BOUNDED = {"clip": "the shared gradient", "head_clip": "each head's gradient"}
"""Options of balancers that bound a norm within the balancer, and of what."""


def refuse_two_bounds(balancing: Balancing, settings: TrainSettings) -> None:
    """Refuse a balancer that bounds by itself what ``clip_by = "part"`` bounds, too.

    Where ``clip_by = "model"`` the two are different: the balancer's own bounds come first, each on its part, and that
    of the settings is on the model as a whole.

    Raises
    ------
    ConfigError
        With both keys.
    """
    if settings.clip_by != "part" or settings.clip == 0:
        return
    for option, what in _BOUNDED.items():
        if bound := balancing.options.get(option, 0.0):
            raise ConfigError(
                f"balancing.{option} = {bound:g} with training.clip_by = 'part': training.clip = {settings.clip:g} "
                f"bounds {what} by itself then, and that would be bounded twice; set balancing.{option} = 0, or "
                "training.clip_by = 'model'"
            )


NTKExponent = Annotated[
    float,
    Param(
        "p in omega = (mean lambda / lambda)^p; above 0.5 omega is not bounded, unless w_max is set",
        ge=0,
        source="authors' code",
    ),
]
WeightBound = Annotated[
    float | None, Param("bound of omega relative to the median; 0 for none; unset: 50, and none for p > 0.5", ge=0)
]


def weight_bound(w_max: float | None, exponent: float) -> float:
    """The bound of NTKMTL's weights relative to their median; infinity for none.

    The paper and its authors' code bound nothing. Where the weighted gradients are equally long (p = 0.5) or nearer to
    their own lengths, a bound only holds back a task that has all but stopped; weights of a larger p differ by more
    than that on losses of different scales, and a bound would make another method of it.

    Raises
    ------
    ConfigError
        If the bound is between 0 and 1.
    """
    if w_max is None:
        w_max = _W_MAX if exponent <= 0.5 else 0.0
    if w_max == 0.0:
        return math.inf
    if w_max < 1.0:
        raise ConfigError(f"balancing.w_max = {w_max}: expected at least 1, or 0 for no bound")
    return w_max
