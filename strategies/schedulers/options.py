"""Options that schedulers and recipes share: each with its meaning, range and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.schedulers.speeds import SpeedModelName

_CODE = "authors' code"

_MANY_STEPS = 100_000
"""Local steps of an order that are more than any paper's."""

# Buffers.
BUFFER_SIZE = Param("K, updates of an aggregation", ge=1)
BufferSize = Annotated[int, BUFFER_SIZE.by("authors' code")]
BaselineBufferSize = Annotated[int, BUFFER_SIZE.by("authors' code of FedQS")]
Concurrency = Annotated[int | None, Param("clients busy at once, drawn at random; all if not set", ge=1)]
MaxStaleness = Annotated[int | None, Param("staler updates are rejected; none if not set", ge=0)]
MaxBuffer = Annotated[
    int | None,
    Param("collect on beyond K until every task is among the updates, at most so many; K only if not set", ge=1),
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
TickOrder = Annotated[
    Literal["sent", "client"],
    Param("updates of one tick wait as their orders were sent, or by their clients' numbers (authors' code)"),
]

# Rounds.
ClientsDrawn = Annotated[int | None, Param("clients drawn for a round; all if not set", ge=1)]
ClientsPerRound = Annotated[int | None, Param("clients whose answers make a round; all if not set", ge=1)]
OVER_COMMIT = Param("clients asked for each answer that a round needs; the slowest are late", ge=1)
OverCommit = Annotated[float, OVER_COMMIT]
Timeout = Annotated[
    float | None, Param("seconds after which a round ends with the answers that are there; never if not set", gt=0)
]
Late = Annotated[Literal["reject", "keep"], Param("late updates are rejected, or aggregated with the next round")]
StepBudget = Annotated[
    float | None, Param("seconds that the steps of slow clients are fitted to; they do all if not set", gt=0)
]

# SAFA's rounds with a quota, and FedAT's of a tier.
Deprecated = Annotated[
    Literal["by_version", "by_not_picked"],
    Param("what a busy client is given up by: its model's age, or not having been picked"),
]
RoundLimit = Annotated[float | None, Param("longest round, seconds; no limit if not set", gt=0)]
ClientsOfTier = Annotated[int | None, Param("clients of a tier's round; all if not set", ge=1)]

# FedQueue's rounds of a fixed length.
RoundSeconds = Annotated[float, Param("T, length of a round, seconds", gt=0)]
Safety = Annotated[float, Param("kept free at a round's end, seconds", ge=0)]
Smoothing = Annotated[float, Param("weight of the newest wait in its mean", gt=0, le=1, source=_CODE)]
Tolerance = Annotated[float, Param("excess wait that is admitted, round lengths", ge=0, source=_CODE)]
Timer = Annotated[float, Param("longest round, round lengths", gt=0, source=_CODE)]
FirstJob = Annotated[int, Param("local steps of a client's first job", ge=1, source=_CODE)]
LeastSteps = Annotated[int, Param("least local steps of a job", ge=1)]
MostSteps = Annotated[int, Param("most local steps of a job", ge=1)]

# FedCompass's groups.
QMax = Annotated[int, Param("Q_max, most local steps of an order", ge=1, source=_CODE)]
QMin = Annotated[int | None, Param("Q_min, fewest local steps; a fifth of q_max if not set", ge=1, source=_CODE)]
LatencyFactor = Annotated[
    float, Param("the paper's lambda: a group's cut-off over its expected duration", gt=1, source=_CODE)
]
SpeedMomentum = Annotated[
    float, Param("mu, weight of the newest report in a client's seconds per step", gt=0, le=1, source=_CODE)
]
SpeedModelOption = Annotated[
    SpeedModelName,
    Param("seconds per step averaged (ema), or a fixed cost fitted beside them (affine)", source=_CODE),
]
FirstTask = Annotated[Literal["q_max", "q_min", "explicit"], Param("steps of a client's first order", source=_CODE)]
FirstSteps = Annotated[int | None, Param("that number, where first_task = 'explicit'", ge=1)]
JoinBound = Annotated[
    float,
    Param("a client may join a group with up to so many times q_max steps (legacy code: 1.2)", ge=1, source=_CODE),
]
LateTest = Annotated[
    Literal["strict", "inclusive"], Param("late after the cut-off, or from it on (legacy code)", source=_CODE)
]
TimeoutFactor = Annotated[
    float, Param("a member leaves its group after so many times lambda q_max S_i seconds; 0: never", ge=0)
]
TimeoutSeconds = Annotated[float | None, Param("the same in seconds, alike for all clients", gt=0)]
EndFlush = Annotated[
    bool, Param("apply the reports that are still kept when the run ends, as one last step", source=_CODE)
]


def limits_nothing(name: str, limit: int | None, clients: int) -> Sequence[str]:
    """The remark that an option asks for more clients than there are, if it does."""
    return (f"{name} = {limit:,}: there are only {clients:,} clients",) if limit is not None and limit > clients else ()


def many_steps(name: str, steps: int) -> Sequence[str]:
    """The remark that an order may ask for very many local steps, if it may."""
    return (f"{name} = {steps:,}: one order may be so many local steps",) if steps > _MANY_STEPS else ()
