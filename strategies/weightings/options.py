"""Options of weightings, which recipes and free compositions share, and what they name."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.core.kinds import Weighting
from strategies.weightings.data_size import DataSize
from strategies.weightings.staleness import Staleness, constant, hinge, polynomial
from strategies.weightings.uniform import Uniform

WeightBaseName = Literal["uniform", "data_size"]
WeightBase = Annotated[WeightBaseName, Param("every update counts the same, or as its client's examples")]
StalenessName = Literal["constant", "polynomial", "hinge"]
StalenessFunction = Annotated[StalenessName, Param("how an update's weight falls with its staleness", source="paper")]


def base_weighting(name: WeightBaseName) -> Weighting:
    """The rule of that name."""
    return Uniform() if name == "uniform" else DataSize()


def staleness_function(name: StalenessName, a: float, b: float) -> Staleness:
    """The function of that name."""
    if name == "constant":
        return constant()
    return polynomial(a) if name == "polynomial" else hinge(a, b)
