"""The options of FedCompass's scheduler, each with its meaning and range."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.schedulers.speeds import SpeedModelName

_CODE = "authors' code"

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
