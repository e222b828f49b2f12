"""The recorder: rows in memory, segments at checkpoints, whole tables at the end.

A row costs a tuple when it is added; what costs more (columns, files) is done for many rows at once. A checkpoint holds
the names of the segments that were there when it was written, so whatever a killed run wrote after it is not part of
the resumed run. Rows that only the end of a run knows (uploads still unsettled, the evaluation of a last version that
was not due) go into the final tables and not into the log: a run that is resumed after its end gives the tables of a
run that never stopped.

Long because all that a run records goes through here, each kind of row in a few lines.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedmtl.client_types import type_name
from fedmtl.evaluation import EvaluationRow
from fedmtl.files import replacing
from fedmtl.protocol import Aggregation, Joined, Lost, Rejection, Update
from fedmtl.records.convergence import Statistics, variances_in, with_variances
from fedmtl.records.log import Row, TableLog, keep_only, refuse_traces
from fedmtl.records.schemas import (
    AGGREGATIONS,
    CONNECTIONS,
    CONVERGENCE,
    EVALUATIONS,
    LOSS_VARIANCES,
    NTK,
    NTK_GROUPS,
    UPDATES,
    read_table,
)
from fedmtl.restoring import refuse_difference, within
from fedmtl.tasks import Task
from fedmtl.text import printable

if TYPE_CHECKING:
    from fedmtl.ntk.measure import Measured

ROW_GROUP = 1 << 16
"""Rows in a row group of the final tables."""

# What an upload says of itself, and what its settlement adds: a row of `updates` is a tuple of both, made at C speed.
_SAID = (
    *("client", "job", "base_version", "steps", "dispatched_at", "arrived_at", "learning_rate", "momentum"),
    *("examples", "bytes_up", "bytes_down"),
)
_PER_TASK = {"losses": "task_losses", "task_weights": "mean_task_weights", "ntk": "task_traces"}
_SETTLED = ("applied_version", "staleness", "weight", "trigger", "late", "rejected")
_said = attrgetter(*_SAID, "terms", "tasks", *_PER_TASK.values())
_NEITHER = (None, None, None, None, False, None)


class Recorder:
    """Collects the rows of a run's tables.

    Parameters
    ----------
    directory
        The run's directory, or None to keep everything in memory.
    tasks
        All tasks of the run, in order; the per-task columns have an entry for each.
    kernels
        Whether there are tables `ntk` and `ntk_groups`.
    connections
        Whether there is a table `connections`.
    convergence
        Whether `aggregations` has the columns of :data:`fedmtl.records.schemas.CONVERGENCE`.
    """

    def __init__(
        self,
        directory: Path | None,
        tasks: Sequence[Task],
        *,
        kernels: bool = False,
        connections: bool = False,
        convergence: bool = False,
    ) -> None:
        self.directory = directory
        self.tasks = tuple(tasks)
        self._finished = False
        self._updates = TableLog("updates", UPDATES, self._update_columns)
        measured = [field for field in CONVERGENCE if field.name not in LOSS_VARIANCES.names]
        steps = pa.schema([*AGGREGATIONS, *(measured if convergence else [])])
        self._aggregations = TableLog("aggregations", steps, _transpose)
        self._evaluations = TableLog("evaluations", EVALUATIONS, _transpose)
        self._kernels = TableLog("ntk", NTK, _transpose)
        self._groups = TableLog("ntk_groups", NTK_GROUPS, _transpose)
        self._connections = TableLog("connections", CONNECTIONS, _transpose)
        logs = [self._updates, self._aggregations, self._evaluations]
        logs += [self._kernels, self._groups] * kernels + [self._connections] * connections
        self._tables = tuple(log.name for log in logs)
        # No table of its own: a last version's variances, as all that only the end knows, are in no segment.
        self._variances = TableLog("loss_variances", LOSS_VARIANCES, _transpose)
        logs += [self._variances] * convergence
        self._logs = {log.name: log for log in logs}
        self._last_rows: dict[str, list[Row]] = {name: [] for name in self._logs}

    def add_aggregation(self, aggregation: Aggregation, measured: Statistics = MappingProxyType({})) -> None:
        """Record a server step, the updates that went into it and what was measured of it, if anything is to be."""
        self._check_open()
        version, trigger, late, lags = aggregation.version, aggregation.trigger, aggregation.late, aggregation.staleness
        updates = zip(aggregation.updates, aggregation.weights, lags, strict=True)
        if late:
            rows = [(_said(u), (version, lag, weight, trigger, u.key in late, None)) for u, weight, lag in updates]
        else:
            rows = [(_said(u), (version, lag, weight, trigger, False, None)) for u, weight, lag in updates]
        self._updates.extend(rows)
        mean = sum(lags) / max(len(lags), 1)
        summed_up = (version, aggregation.time, trigger, len(lags), mean, max(lags, default=0))
        columns = self._aggregations.schema.names[len(summed_up) :]
        self._aggregations.extend([(*summed_up, *(measured[name] for name in columns))])

    def add_rejection(self, rejection: Rejection) -> None:
        """Record an upload that was turned down."""
        self._check_open()
        self._updates.extend([(_said(rejection.update), (*_NEITHER[:-1], printable(rejection.reason)))])

    def add_evaluation(self, rows: Sequence[EvaluationRow], *, last: bool = False) -> None:
        """Record an evaluation; `last` marks one that was made only because the run ended."""
        self._check_open()
        if last:
            self._last_rows["evaluations"].extend(rows)
        else:
            self._evaluations.extend(rows)

    def add_loss_variance(self, version: int, tasks: Sequence[float | None], *, last: bool = False) -> None:
        """Record each task's variance of the loss over clients, at a version that a server step has made.

        `last` marks that of a version which was evaluated only because the run ended.
        """
        self._check_open()
        if last:
            self._last_rows[self._variances.name].append((version, tasks))
        else:
            self._variances.extend([(version, tasks)])

    def add_kernels(self, measured: Measured, *, last: bool = False) -> None:
        """Record a measurement of kernels; `last` marks one that was made only because the run ended."""
        self._check_open()
        if last:
            self._last_rows["ntk"].extend(measured.tasks)
            self._last_rows["ntk_groups"].extend(measured.groups)
        else:
            self._kernels.extend(measured.tasks)
            self._groups.extend(measured.groups)

    def add_connection(self, event: Lost | Joined) -> None:
        """Record that a client was lost or joined, if there is a table for it."""
        self._check_open()
        lost = printable(event.reason) if isinstance(event, Lost) else None
        self._connections.extend([(event.time, event.client, lost)])

    def add_unsettled(self, updates: Iterable[Update]) -> None:
        """Record the uploads that were neither applied nor rejected when the run ended."""
        self._check_open()
        self._last_rows["updates"].extend((_said(update), _NEITHER) for update in updates)

    @property
    def names(self) -> Sequence[str]:
        """The tables that there are."""
        return self._tables

    def table(self, name: str) -> pa.Table:
        """A table as it stands, with every row that was added."""
        if self._finished:
            assert self.directory is not None
            return read_table(self.directory, name)
        parts = [*self._parts(name)]
        return pa.concat_tables(parts) if parts else self._schema(name).empty_table()

    def latest_evaluation(self) -> list[EvaluationRow]:
        """The rows of the newest version that was evaluated; empty before the first evaluation."""
        table = self.table("evaluations")
        if not table.num_rows:
            return []
        newest = table.filter(pc.equal(table["version"], table["version"][-1]))
        return [EvaluationRow(**row) for row in newest.to_pylist()]

    def state_dict(self) -> dict[str, Any]:
        """Write the rows since the last call as new segments; the segments and the number of rows of each table.

        In memory, the rows themselves are the state.

        Raises
        ------
        RunDirectoryError
            If a segment cannot be written.
        """
        if self.directory is None:
            return {
                name: pa.concat_tables([log.schema.empty_table(), *log.parts(None)]).to_pydict()
                for name, log in self._logs.items()
            }
        if not self._finished:
            for log in self._logs.values():
                log.save(self._segments)
        return {
            name: {"segments": [[*entry] for entry in log.segments.items()], "rows": log.count}
            for name, log in self._logs.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state_dict` returned; segments that were written later are deleted.

        Raises
        ------
        CheckpointError
            If rows that the state counts are neither in the segments nor in finished tables.
        KeyError, TypeError, ValueError
            If it is no such state; the message names the entry.
        """
        self._reopen()
        if self.directory is None:
            for name, log in self._logs.items():
                log.replace(pa.table(dict(state[name]), schema=log.schema))
            return
        refuse_difference(state, {name: state.get(name) for name in self._logs})
        for name, log in self._logs.items():
            with within(name):
                refuse_difference(state[name], {"segments": list(state[name]["segments"]), "rows": 0})
            finished = functools.partial(self._finished_rows, name)
            log.restore(self._segments, dict(state[name]["segments"]), int(state[name]["rows"]), finished)
        keep_only(self._segments, [segment for log in self._logs.values() for segment in log.segments])

    def start_again(self) -> None:
        """Hold no rows, where there is no state to go back to yet; segments saved for the first one are deleted.

        Raises
        ------
        CheckpointError
            If the directory shows that there was a state: finished tables, or segments of a second one.
        """
        self._reopen()
        for log in self._logs.values():
            log.replace(log.schema.empty_table())
        if self.directory is None:
            return
        refuse_traces(self.directory, self._segments, self._tables)
        keep_only(self._segments, [])

    def finish(self) -> None:
        """Write the final tables and remove the segments; their bytes do not depend on how the run was cut.

        Raises
        ------
        RunDirectoryError
            If a table cannot be written; the segments are then still there.
        """
        self._check_open()
        if self.directory is None:
            return
        for name in self._tables:
            with (
                replacing(self.directory / f"{name}.parquet") as temporary,
                pq.ParquetWriter(temporary, self._schema(name), write_page_checksum=True) as out,
            ):
                for group in _row_groups(self._parts(name)):
                    out.write_table(group, row_group_size=ROW_GROUP)
        self._finished = True
        keep_only(self._segments, [])

    @property
    def _segments(self) -> Path:
        assert self.directory is not None
        return self.directory / "records"

    def _reopen(self) -> None:
        self._finished = False
        for rows in self._last_rows.values():
            rows.clear()

    def _check_open(self) -> None:
        if self._finished:
            raise RuntimeError("the recorder is finished: its tables are written and take no more rows")

    def _finished_rows(self, name: str) -> pa.Table:
        """A log's rows as the finished tables have them, of which the end may have added the last."""
        assert self.directory is not None
        if name == self._variances.name:
            return variances_in(read_table(self.directory, self._aggregations.name))
        return read_table(self.directory, name).select(self._logs[name].schema.names)

    def _schema(self, name: str) -> pa.Schema:
        """Of a table, as it is written."""
        joined = name == self._aggregations.name and self._variances.name in self._logs
        return pa.schema([*AGGREGATIONS, *CONVERGENCE]) if joined else self._logs[name].schema

    def _parts(self, name: str) -> Iterator[pa.Table]:
        """The rows of a table as they stand."""
        if self._schema(name) == self._logs[name].schema:
            yield from self._rows(name)
            return
        variances = {
            row["version"]: row["loss_variance"] for p in self._rows("loss_variances") for row in p.to_pylist()
        }
        yield from (with_variances(part, variances) for part in self._rows(name))

    def _rows(self, name: str) -> Iterator[pa.Table]:
        """The rows of a log, and those that the end has added."""
        log = self._logs[name]
        yield from log.parts(None if self.directory is None else self._segments)
        if rows := self._last_rows[name]:
            yield log.columns(rows)

    def _update_columns(self, rows: Sequence[Row]) -> list[Sequence[Any]]:
        said, settled = zip(*rows, strict=True)
        columns: dict[str, Sequence[Any]] = dict(
            zip((*_SAID, "terms", "tasks", *_PER_TASK), zip(*said, strict=True), strict=True)
        )
        columns |= _fedqs_columns(columns["terms"])
        columns |= dict(zip(_SETTLED, zip(*settled, strict=True), strict=True))
        for name in _PER_TASK:
            columns[name] = _align(columns["tasks"], columns[name], len(self.tasks))
        return [columns[name] for name in UPDATES.names]


def _fedqs_columns(terms: Sequence[Mapping[str, float]]) -> dict[str, Sequence[Any]]:
    """What FedQS's clients say of themselves; of others nobody is typed, and nothing measured."""
    return {
        "client_type": [type_name(said.get("client_type")) for said in terms],
        "similarity": [said.get("similarity") for said in terms],
        "feedback": [said.get("feedback") == 1.0 for said in terms],
    }


def _transpose(rows: Sequence[Row]) -> list[Sequence[Any]]:
    return list(zip(*rows, strict=True))


def _align(
    owned: Sequence[Sequence[int]], values: Sequence[Sequence[float]], tasks: int
) -> list[Sequence[float | None]]:
    """For each row the value of every task, None where the row has none.

    Rejected uploads are recorded, too, so nothing that a client says of its tasks is trusted.
    """
    everything = tuple(range(tasks))
    nothing: list[float | None] = [None] * tasks
    rows: list[Sequence[float | None]] = []
    for indices, entries in zip(owned, values, strict=True):
        if indices == everything and len(entries) == tasks:
            rows.append(entries)
        elif len(indices) == len(entries):
            known = dict(zip(indices, entries, strict=True))
            rows.append([known.get(task) for task in everything])
        else:
            rows.append(nothing)
    return rows


def _row_groups(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of ROW_GROUP rows, each in one piece: a writer's pages depend on how its input is cut."""
    held: list[pa.Table] = []
    rows = 0
    for part in parts:
        held.append(part)
        rows += part.num_rows
        while rows >= ROW_GROUP:
            joined = pa.concat_tables(held)
            yield joined.slice(0, ROW_GROUP).combine_chunks()
            held, rows = [joined.slice(ROW_GROUP)], rows - ROW_GROUP
    if rows:
        yield pa.concat_tables(held).combine_chunks()
