"""Options that several balancers have in common."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.settings import Balancing, TrainSettings

HeadWeight = Literal["unweighted", "weighted"]
"""Whether a head follows its own task's gradient, or that times the weight the task has in the shared gradient."""

OwnHeads = Annotated[HeadWeight, Param("whether the weights scale the heads")]
Clip = Annotated[float, Param("upper bound of the shared gradient's L2 norm; 0 for none", ge=0)]

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


def weight_bound(w_max: float) -> float:
    """The bound of the weights relative to their median; infinity for the option's 0."""
    if w_max == 0.0:
        return math.inf
    if w_max < 1.0:
        raise ConfigError(f"balancing.w_max = {w_max}: expected at least 1, or 0 for no bound")
    return w_max
