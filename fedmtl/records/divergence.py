"""When a run has diverged, by what was evaluated: nothing is remembered beside the table of evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedmtl.evaluation import EvaluationRow

TIMES = 100.0
"""A loss that is so many times that of version 0 ..."""
IN_A_ROW = 3
"""... in so many evaluations one after the other means that a run has diverged."""


@dataclass(frozen=True)
class Divergence:
    """That a run has diverged.

    Attributes
    ----------
    version
        The version at which it was seen.
    task
        The task whose evaluation shows it; None if a server step could not be taken.
    why
        What shows it.
    """

    version: int
    task: str | None
    why: str

    def as_json(self) -> dict[str, Any]:
        """The divergence as a summary has it."""
        return asdict(self)


class DivergenceWatch:
    """Looks at evaluations as they come.

    A run has diverged when an evaluation is not finite, or when a task's loss on the test set is above 100 times its
    value at version 0 in three evaluations one after the other. A loss of 0 at version 0 has no hundredfold: the first
    loss above 0 then takes its place.

    Attributes
    ----------
    found
        The first divergence, or None so far.
    """

    def __init__(self) -> None:
        self.found: Divergence | None = None
        self._start: dict[str, EvaluationRow] = {}
        self._above: dict[str, list[int]] = {}

    def see(self, rows: Iterable[EvaluationRow]) -> None:
        """Look at further rows, in the order in which they were recorded."""
        for row in rows:
            if self.found is not None:
                return
            if not math.isfinite(row.value):
                where = "the test set" if row.group == "test" else f"the group {row.group!r}"
                self.found = Divergence(row.version, row.task, f"its {row.metric} on {where} is {row.value}")
            elif row.group == "test" and row.metric == "loss":
                self._see_loss(row)

    def _see_loss(self, row: EvaluationRow) -> None:
        start = self._start.get(row.task)
        if start is None:
            if row.value > 0:
                self._start[row.task] = row
            return
        above = self._above.setdefault(row.task, [])
        if row.value <= TIMES * start.value:
            above.clear()
            return
        above.append(row.version)
        if len(above) == IN_A_ROW:
            why = (
                f"its loss on the test set was above {TIMES:g} times that of version {start.version} "
                f"({start.value:.4g}) in {IN_A_ROW} evaluations, from version {above[0]} on, and is {row.value:.4g}"
            )
            self.found = Divergence(row.version, row.task, why)


def watch_of(evaluations: pa.Table) -> DivergenceWatch:
    """A watch that has seen a table of evaluations."""
    losses = pc.and_(pc.equal(evaluations["group"], "test"), pc.equal(evaluations["metric"], "loss"))
    telling = evaluations.filter(pc.or_(losses, pc.invert(pc.is_finite(evaluations["value"]))))
    watch = DivergenceWatch()
    watch.see(EvaluationRow(**row) for row in telling.to_pylist())
    return watch


def divergence_words(diverged: Mapping[str, Any]) -> str:
    """A summary's ``diverged`` in a line."""
    task = "" if diverged["task"] is None else f"task {diverged['task']}: "
    return f"diverged at version {diverged['version']:,}: {task}{diverged['why']}"
