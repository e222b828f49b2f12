"""What a run starts from, as tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.records import partition_table, read_table, write_devices, write_partition
from fedmtl.tasks import Task

DIGIT, ODD, INK = Task("digit", "classification", 4), Task("odd", "binary"), Task("ink", "regression")
LABELS = torch.tensor([0, 0, 3, 1, 1, 1, 2, 3])


def federated(*tasks: Task) -> FederatedData:
    """Client 0 trains on labels 0 0 3, client 1 on 1 1; the others are held out or unused."""
    columns = {"digit": LABELS, "odd": (LABELS % 2).float(), "ink": LABELS.float()}
    part = Examples(torch.zeros(8, 2), tuple(columns[task.name] for task in tasks))
    shards, held_out = Shards([np.array([0, 1, 2]), np.array([3, 4])]), Shards([np.array([5]), np.array([6, 7])])
    return FederatedData(tasks, part, part, shards, held_out, np.ones((2, len(tasks)), dtype=bool))


def rows(*tasks: Task) -> list[tuple[int, ...]]:
    return [tuple(row.values()) for row in partition_table(federated(*tasks)).to_pylist()]


def test_the_partition_counts_training_examples_by_client_and_class() -> None:
    assert rows(INK, DIGIT, ODD) == [(0, 0, 2), (0, 3, 1), (1, 1, 2)]
    assert partition_table(federated(INK, DIGIT, ODD)).schema.metadata == {b"task": b"digit"}


def test_names_of_classes_and_clients_are_kept_where_the_data_have_them() -> None:
    data = federated(Task("digit", "classification", 4, classes=("zero", "one", "two", "three")))
    data.client_names = ("anna", "bert")
    metadata = partition_table(data).schema.metadata
    assert json.loads(metadata[b"classes"]) == ["zero", "one", "two", "three"]
    assert json.loads(metadata[b"clients"]) == ["anna", "bert"]


def test_without_classes_a_binary_task_is_counted() -> None:
    assert rows(INK, ODD) == [(0, 0, 2), (0, 1, 1), (1, 1, 2)]


def test_with_regressions_only_all_examples_are_of_one_class() -> None:
    assert rows(INK) == [(0, 0, 3), (1, 0, 2)]


def test_both_tables_are_kept_in_the_directory(tmp_path: Path) -> None:
    data = federated(DIGIT)
    write_partition(tmp_path, data)
    write_devices(tmp_path, np.array([1.5, 3.0]))
    assert read_table(tmp_path, "partition").equals(partition_table(data))
    assert read_table(tmp_path, "partition").schema.metadata[b"task"] == b"digit"
    assert read_table(tmp_path, "devices").to_pydict() == {"client": [0, 1], "seconds": [1.5, 3.0]}
