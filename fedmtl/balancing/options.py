"""Options that several balancers have in common."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.errors import ConfigError

HeadWeight = Literal["unweighted", "weighted"]
"""Whether a head follows its own task's gradient, or that times the weight the task has in the shared gradient."""

OwnHeads = Annotated[HeadWeight, Param("whether the weights scale the heads")]
Clip = Annotated[float, Param("upper bound of the shared gradient's L2 norm; 0 for none", ge=0)]


def weight_bound(w_max: float) -> float:
    """The bound of the weights relative to their median; infinity for the option's 0."""
    if w_max == 0.0:
        return math.inf
    if w_max < 1.0:
        raise ConfigError(f"balancing.w_max = {w_max}: expected at least 1, or 0 for no bound")
    return w_max
