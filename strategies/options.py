"""Options that several recipes share, each with its meaning and range."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.parts import Weighting
from strategies.storage import StorageName
from strategies.topologies import TopologyName
from strategies.weightings import DataSize, Staleness, Uniform, constant, hinge, polynomial

BufferSize = Annotated[int, Param("K, updates of an aggregation", ge=1, source="authors' code")]
BaselineBufferSize = Annotated[int, Param("K, updates of an aggregation", ge=1, source="authors' code of FedQS")]
Concurrency = Annotated[int | None, Param("clients busy at once, drawn at random; all if not set", ge=1)]
MaxBuffer = Annotated[
    int | None, Param("collect on beyond K until every task is among the updates, at most so many; K only if not set")
]
FlushSeconds = Annotated[
    float | None,
    Param(
        "seconds that an update waits for others at most; then all that wait are aggregated; no limit if not set", gt=0
    ),
]
BufferRule = Annotated[
    Literal["drain", "one_per_tick"], Param("aggregate as often as K updates wait, or once per tick at most")
]
Clock = Annotated[
    Literal["event", "tick"], Param("react to each arrival, or to all that arrive at one instant together")
]
Tick = Annotated[float, Param("length of a tick where one_per_tick leaves a backlog, seconds", gt=0)]
WeightBaseName = Literal["uniform", "data_size"]
WeightBase = Annotated[WeightBaseName, Param("every update counts the same, or as its client's examples")]
StalenessName = Literal["constant", "polynomial", "hinge"]
StalenessFunction = Annotated[StalenessName, Param("how an update's weight falls with its staleness", source="paper")]

Cache = Annotated[
    StorageName, Param("where a vector for each client is kept: in memory, there at half the bytes, or in a file")
]

TopologyOption = Annotated[TopologyName, Param("who talks to whom; a random graph is new in each round")]
Degree = Annotated[int, Param("neighbours of a client in a random graph or an expander, at most", ge=2)]


def base_weighting(name: WeightBaseName) -> Weighting:
    """The rule of that name."""
    return Uniform() if name == "uniform" else DataSize()


def staleness_function(name: StalenessName, a: float, b: float) -> Staleness:
    """The function of that name."""
    if name == "constant":
        return constant()
    return polynomial(a) if name == "polynomial" else hinge(a, b)
