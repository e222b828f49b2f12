"""FedQueue's options, for its recipe and for free compositions."""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param

_CODE = "authors' code"

RoundSeconds = Annotated[float, Param("T, length of a round, seconds", gt=0)]
Safety = Annotated[float, Param("kept free at a round's end, seconds", ge=0)]
Smoothing = Annotated[float, Param("weight of the newest wait in its mean", gt=0, le=1, source=_CODE)]
Tolerance = Annotated[float, Param("excess wait that is admitted, round lengths", ge=0, source=_CODE)]
Timer = Annotated[float, Param("longest round, round lengths", gt=0, source=_CODE)]
FirstJob = Annotated[int, Param("local steps of a client's first job", ge=1, source=_CODE)]
LeastSteps = Annotated[int, Param("least local steps of a job", ge=1)]
MostSteps = Annotated[int, Param("most local steps of a job", ge=1)]
