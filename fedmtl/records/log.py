"""A table that grows: rows in memory, then columns, then segment files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedmtl.errors import CheckpointError
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
    """

    def __init__(self, name: str, schema: pa.Schema, to_columns: ToColumns) -> None:
        self.name = name
        self.schema = schema
        self.count = 0
        self.segments: list[str] = []
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
        segment = f"{self.name}-{len(self.segments):06d}.arrow"
        with replacing(directory / segment) as temporary, pa.ipc.new_file(str(temporary), self.schema) as out:
            out.write_table(pa.concat_tables(self._chunks).combine_chunks())
        self.segments.append(segment)
        self._chunks.clear()

    def restore(self, directory: Path, segments: Sequence[str], count: int, finished: pa.Table | None) -> None:
        """Hold exactly the first `count` rows: those of these segments, or of the finished table that replaced them.

        Raises
        ------
        CheckpointError
            If neither holds them.
        """
        self.replace(self.schema.empty_table())
        if all((directory / segment).is_file() for segment in segments):
            self.segments = list(segments)
            self.count = sum(part.num_rows for part in self.parts(directory))
        if self.count == count:
            return
        if finished is None or finished.num_rows < count:
            raise CheckpointError(
                f"{directory} holds {self.count} of the {count} rows of {self.name} that the checkpoint counts: "
                f"it needs {', '.join(segments)}; start again with --overwrite"
            )
        self.replace(finished.slice(0, count))

    def replace(self, table: pa.Table) -> None:
        """Hold the rows of this table and no others."""
        self.segments, self._rows = [], []
        self._chunks = [table] if table.num_rows else []
        self.count = table.num_rows

    def columns(self, rows: Sequence[Row]) -> pa.Table:
        """Rows as they are added, as a table."""
        return pa.table(self._to_columns(rows), schema=self.schema)

    def _compact(self) -> None:
        if self._rows:
            self._chunks.append(self.columns(self._rows))
            self._rows = []


def _read(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start again with --overwrite") from None
