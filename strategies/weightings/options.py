"""How much an update counts to begin with: an option of many recipes, and what it names."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.core.kinds import Weighting
from strategies.weightings.data_size import DataSize
from strategies.weightings.uniform import Uniform

WeightBaseName = Literal["uniform", "data_size"]
WeightBase = Annotated[WeightBaseName, Param("every update counts the same, or as its client's examples")]


def base_weighting(name: WeightBaseName) -> Weighting:
    """The weighting that the option names."""
    return Uniform() if name == "uniform" else DataSize()
