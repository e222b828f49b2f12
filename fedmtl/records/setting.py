"""What a run starts from, kept beside its tables so that a report needs nothing but the directory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fedmtl.data.federated import FederatedData
from fedmtl.files import replacing
from fedmtl.records.schemas import DEVICES, PARTITION

PARTITION_FILE = "partition.parquet"
DEVICES_FILE = "devices.parquet"


def partition_table(data: FederatedData) -> pa.Table:
    """How many training examples of each class each client has; pairs without examples have no row.

    The classes are those of the first classification task, or of the first binary one; with regressions only, every
    example is of class 0. The name of the task is ``schema.metadata[b"task"]``. Where the data have names for them, its
    classes' are under ``b"classes"`` and the clients' under ``b"clients"``, as JSON lists.
    """
    index = next((i for kind in ("classification", "binary") for i, t in enumerate(data.tasks) if t.kind == kind), None)
    names: tuple[str, ...] = ()
    clients = np.repeat(np.arange(data.clients, dtype=np.int64), data.shards.sizes)
    if index is None:
        classes, outputs, name = np.zeros_like(clients), 1, ""
    else:
        task = data.tasks[index]
        labels = data.train.targets[index].index_select(0, data.shards.indices).to("cpu", torch.int64)
        classes, outputs, name, names = labels.numpy(), max(task.outputs, 2), task.name, task.classes
    pairs, counts = np.unique(clients * outputs + classes, return_counts=True)
    known = {"classes": names, "clients": data.client_names}
    schema = PARTITION.with_metadata(
        {"task": name, **{key: json.dumps(value) for key, value in known.items() if value}}
    )
    return pa.table([pairs // outputs, pairs % outputs, counts.astype(np.int64)], schema=schema)


def write_partition(directory: Path, data: FederatedData, seed: int | None = None) -> None:
    """Write ``partition.parquet``, with the seed that the data were drawn by in its metadata, if it is known.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    write_table(directory / PARTITION_FILE, _drawn_by(seed, partition_table(data)))


def write_devices(directory: Path, seconds: np.ndarray, seed: int | None = None) -> None:
    """Write ``devices.parquet``, with the seed that they were drawn by in its metadata, if it is known.

    Parameters
    ----------
    directory
        Of the run.
    seconds
        What each client's device takes for the same work, shape [clients].
    seed
        Of the devices.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    columns = [np.arange(len(seconds), dtype=np.int64), np.asarray(seconds, dtype=np.float64)]
    write_table(directory / DEVICES_FILE, _drawn_by(seed, pa.table(columns, schema=DEVICES)))


def _drawn_by(seed: int | None, table: pa.Table) -> pa.Table:
    if seed is None:
        return table
    return table.replace_schema_metadata({**(table.schema.metadata or {}), "seed": str(seed)})


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
