"""Options that recipes in rounds share, each with its meaning and range."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param

ClientsPerRound = Annotated[int | None, Param("clients whose answers make a round; all if not set", ge=1)]
OverCommit = Annotated[float, Param("clients asked for each answer that a round needs; the slowest are late", ge=1)]
Timeout = Annotated[
    float | None, Param("seconds after which a round ends with the answers that are there; never if not set", gt=0)
]
Late = Annotated[Literal["reject", "keep"], Param("late updates are rejected, or aggregated with the next round")]
StepBudget = Annotated[
    float | None, Param("seconds that the steps of slow clients are fitted to; they do all if not set", gt=0)
]
