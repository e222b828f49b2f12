"""A table that grows: rows in memory, then columns, then segment files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedmtl.errors import CheckpointError, RunDirectoryError
from fedmtl.files import replacing

Row = tuple[Any, ...]
ToColumns = Callable[[Sequence[Row]], list[Sequence[Any]]]

_COMPACT = 1 << 14  # rows kept as tuples before they become columns, which take a quarter of the memory


class TableLog:
    """The rows of one table in the order in which they were added.

    Parameters
    ----------
    name, schema
        Of the table.
    to_columns
        Turns rows as they are added into columns as the schema has them.

    Attributes
    ----------
    count
        Rows in all.
    segments
        The files that hold the first of them, in order, each with the SHA-256 of its bytes.
    """

    def __init__(self, name: str, schema: pa.Schema, to_columns: ToColumns) -> None:
        self.name = name
        self.schema = schema
        self.count = 0
        self.segments: dict[str, str] = {}
        self._to_columns = to_columns
        self._rows: list[Row] = []
        self._chunks: list[pa.Table] = []

    def extend(self, rows: Sequence[Row]) -> None:
        """Add rows to the table."""
        self._rows.extend(rows)
        self.count += len(rows)
        if len(self._rows) >= _COMPACT:
            self._compact()

    def parts(self, directory: Path | None) -> Iterator[pa.Table]:
        """All rows, as tables in order; `directory` holds the segments.

        Raises
        ------
        CheckpointError
            If a segment is damaged.
        """
        for segment in self.segments:
            assert directory is not None
            yield _read(directory / segment)
        self._compact()
        yield from self._chunks

    def save(self, directory: Path) -> None:
        """Write the rows since the last call as a new segment.

        Raises
        ------
        RunDirectoryError
            If it cannot be written; the rows are then still here.
        """
        self._compact()
        if not self._chunks:
            return
        segment = _segment_name(self.name, len(self.segments))
        with replacing(directory / segment) as temporary, pa.ipc.new_file(str(temporary), self.schema) as out:
            out.write_table(pa.concat_tables(self._chunks).combine_chunks())
        self.segments[segment] = _checksum(directory / segment)
        self._chunks.clear()

    def restore(
        self, directory: Path, segments: Mapping[str, str], count: int, finished: Callable[[], pa.Table]
    ) -> None:
        """Hold exactly the first `count` rows: those of these segments, or of the finished table that replaced them.

        Parameters
        ----------
        directory
            That of the segments.
        segments
            As they were when there were so many rows.
        count
            The number of rows.
        finished
            Reads the finished table.

        Raises
        ------
        CheckpointError
            If neither holds them.
        """
        self.replace(self.schema.empty_table())
        faults = (_fault(directory / segment, checksum) for segment, checksum in segments.items())
        fault = next(filter(None, faults), None)
        if fault is None:
            self.segments = dict(segments)
            self.count = sum(part.num_rows for part in self.parts(directory))
            if self.count == count:
                return
            fault = f"{directory} has {self.count} of its {count} rows"  # saved when finished, it needs no segments
        try:
            table = finished()
        except RunDirectoryError as error:
            raise self._lost(fault, str(error)) from None
        if table.num_rows < count:
            raise self._lost(fault, f"{self.name}.parquet has {table.num_rows} of its {count} rows")
        self.replace(table.slice(0, count))

    def _lost(self, fault: str, other: str) -> CheckpointError:
        return CheckpointError(
            f"the table {self.name} cannot be continued: {fault}, and {other}; put one of the two back, or start again "
            "with --overwrite"
        )

    def replace(self, table: pa.Table) -> None:
        """Hold the rows of this table and no others."""
        self.segments, self._rows = {}, []
        self._chunks = [table] if table.num_rows else []
        self.count = table.num_rows

    def columns(self, rows: Sequence[Row]) -> pa.Table:
        """Rows as they are added, as a table."""
        return pa.table(self._to_columns(rows), schema=self.schema)

    def _compact(self) -> None:
        if self._rows:
            self._chunks.append(self.columns(self._rows))
            self._rows = []


def _segment_name(table: str, number: int) -> str:
    return f"{table}-{number:06d}.arrow"


def keep_only(directory: Path, segments: Collection[str]) -> None:
    """Delete what else lies among segments, and their folder when nothing is left in it."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name not in segments:
            path.unlink()
    if not segments:
        directory.rmdir()


def refuse_traces(directory: Path, segments: Path, tables: Sequence[str]) -> None:
    """Refuse to begin anew where something shows that rows had been saved, with a state that is gone.

    The first segment of a table shows nothing: the process may have died before the state that was to name it.

    Raises
    ------
    CheckpointError
        If there are finished tables, or later segments.
    """
    finished = [path for name in tables if (path := directory / f"{name}.parquet").is_file()]
    later = [p for p in sorted(segments.glob("*.arrow")) if p.name != _segment_name(p.name.partition("-")[0], 0)]
    for path in (*finished, *later):
        raise CheckpointError(
            f"the checkpoint in {directory} is missing, and {path} shows that there was one: put it back, or start "
            "again with --overwrite"
        )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(segment: Path, checksum: str) -> str | None:
    """What keeps a segment from being what it was when it was written."""
    try:
        return None if _checksum(segment) == checksum else f"{segment} is damaged"
    except OSError as error:
        return f"{segment} cannot be read ({error.strerror})"


def _read(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start again with --overwrite") from None
