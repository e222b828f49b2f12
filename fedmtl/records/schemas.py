"""The columns of a run's tables.

Times are seconds of the fleet's clock, sizes are bytes. In `updates` every upload has one row, written when it was
settled:

==================  ===================================================================================================
applied             `applied_version`, `staleness`, `weight` and `trigger` are set
rejected            these four are null, and `rejected` says why
unsettled           all five are null: the run ended before the server came to it
==================  ===================================================================================================
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fedmtl.client_types import TYPE_NUMBERS
from fedmtl.errors import RunDirectoryError

_INT, _FLOAT, _TEXT, _PER_TASK = pa.int64(), pa.float64(), pa.string(), pa.list_(pa.float64())

UPDATES = pa.schema(
    [
        pa.field("client", _INT, nullable=False),
        pa.field("job", _INT, nullable=False),
        pa.field("base_version", _INT, nullable=False),
        pa.field("applied_version", _INT),  # the version that the update went into
        pa.field("staleness", _INT),  # versions made between base_version and the aggregation
        pa.field("steps", _INT, nullable=False),
        pa.field("dispatched_at", _FLOAT, nullable=False),
        pa.field("arrived_at", _FLOAT, nullable=False),
        pa.field("weight", _FLOAT),
        pa.field("trigger", _TEXT),
        pa.field("late", pa.bool_(), nullable=False),
        pa.field("client_type", _TEXT, nullable=False),  # empty where the policy has no types
        pa.field("learning_rate", _FLOAT, nullable=False),
        pa.field("momentum", _FLOAT, nullable=False),
        pa.field("similarity", _FLOAT),
        pa.field("feedback", pa.bool_(), nullable=False),
        pa.field("examples", _INT, nullable=False),
        pa.field("bytes_up", _INT, nullable=False),
        pa.field("bytes_down", _INT, nullable=False),
        pa.field("rejected", _TEXT),
        pa.field(
            "losses", _PER_TASK, nullable=False
        ),  # these three: an entry per task of the run, null where not owned
        pa.field("task_weights", _PER_TASK, nullable=False),
        pa.field("ntk", _PER_TASK, nullable=False),
    ]
)

AGGREGATIONS = pa.schema(
    [
        pa.field("version", _INT, nullable=False),
        pa.field("time", _FLOAT, nullable=False),
        pa.field("trigger", _TEXT, nullable=False),
        pa.field("size", _INT, nullable=False),
        pa.field("mean_staleness", _FLOAT, nullable=False),
        pa.field("max_staleness", _INT, nullable=False),
    ]
)

CONVERGENCE = pa.schema(  # see fedmtl.records.convergence; null where a statistic has no meaning
    [
        pa.field("step_norm", _FLOAT),
        pa.field("update_norm", _FLOAT),
        pa.field("update_spread", _FLOAT),
        pa.field("dissimilarity", _FLOAT),
        pa.field("step_cosine", _FLOAT),
        pa.field("pair_cosine", _FLOAT),
        pa.field("drift", _FLOAT),
        pa.field("share_fast", _FLOAT),
        *(pa.field(f"share_{name}", _FLOAT) for name in TYPE_NUMBERS),
        pa.field("loss_variance", _PER_TASK),  # an entry per task of the run; null where the version is not evaluated
    ]
)
"""What `aggregations` has besides, where ``records.convergence`` is set."""

LOSS_VARIANCES = pa.schema([AGGREGATIONS.field("version"), CONVERGENCE.field("loss_variance")])
"""The variances of evaluated versions, as a run keeps them until its tables are written."""

EVALUATIONS = pa.schema(
    [
        pa.field("version", _INT, nullable=False),
        pa.field("time", _FLOAT, nullable=False),
        pa.field("task", _TEXT, nullable=False),
        pa.field("metric", _TEXT, nullable=False),  # the task's metric, or "loss"
        pa.field("value", _FLOAT, nullable=False),
        pa.field("group", _TEXT, nullable=False),
    ]
)

NTK = pa.schema(  # see fedmtl.ntk.measure.KernelRow
    [
        pa.field("version", _INT, nullable=False),
        pa.field("time", _FLOAT, nullable=False),
        pa.field("client", _INT),  # null for examples of all clients together
        pa.field("kernel", _TEXT, nullable=False),  # of "outputs" or of "losses"
        pa.field("task", _TEXT, nullable=False),  # empty for the sum of a client's losses
        pa.field("examples", _INT, nullable=False),
        pa.field("trace", _FLOAT, nullable=False),
        pa.field("trace_error", _FLOAT, nullable=False),
        pa.field("top", _FLOAT, nullable=False),
        pa.field("condition", _FLOAT),
        pa.field("effective_rank", _FLOAT),
        pa.field("eigenvalues", _PER_TASK, nullable=False),  # the largest, in descending order
        pa.field("alignment", _PER_TASK, nullable=False),  # with each task, or in a client's row with each client
        pa.field("cosine", _PER_TASK, nullable=False),
    ]
)

NTK_GROUPS = pa.schema(  # see fedmtl.ntk.groups.GroupRow
    [
        pa.field("version", _INT, nullable=False),
        pa.field("time", _FLOAT, nullable=False),
        pa.field("group", _TEXT, nullable=False),
        pa.field("task", _TEXT, nullable=False),
        pa.field("examples", _INT, nullable=False),
        pa.field("loss", _FLOAT),
        pa.field("trace", _FLOAT, nullable=False),
        pa.field("top", _FLOAT, nullable=False),
        pa.field("effective_rank", _FLOAT),
        pa.field("eigenvalues", _PER_TASK, nullable=False),  # the largest, in descending order
    ]
)

CONNECTIONS = pa.schema(
    [
        pa.field("time", _FLOAT, nullable=False),
        pa.field("client", _INT, nullable=False),
        pa.field("lost", _TEXT),  # why the client was lost; null if it joined
    ]
)

PARTITION = pa.schema(
    [
        pa.field("client", pa.int64(), nullable=False),
        pa.field("class", pa.int64(), nullable=False),  # a class of the task named in the schema's metadata; 0 for none
        pa.field("examples", pa.int64(), nullable=False),
    ]
)

DEVICES = pa.schema([pa.field("client", pa.int64(), nullable=False), pa.field("seconds", pa.float64(), nullable=False)])

SCHEMAS = {
    "updates": UPDATES,
    "aggregations": AGGREGATIONS,
    "evaluations": EVALUATIONS,
    "ntk": NTK,
    "ntk_groups": NTK_GROUPS,
    "connections": CONNECTIONS,
}
"""The schema of each table, by the name of its file.

`ntk` and `ntk_groups` are there only if a run measures kernels, `connections` only if its clients are real.
"""

_FILES = SCHEMAS | {"partition": PARTITION, "devices": DEVICES}


def read_table(directory: Path, name: str) -> pa.Table:
    """A table of a run's directory, such as ``"updates"``.

    Raises
    ------
    RunDirectoryError
        If the directory has no such table, or the file is damaged.
    """
    path = directory / f"{name}.parquet"
    if not path.is_file():
        raise RunDirectoryError(f"{directory} holds no finished run: {path.name} is missing")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}") from None
    if absent := [column for column in _FILES[name].names if column not in table.column_names]:
        raise RunDirectoryError(f"{path} is not a run's table of {name}: the column {absent[0]} is missing")
    return table
