"""Partitions: how examples are spread over clients.

A partition is a function ``partition(pool, clients, seed, *, options...)`` that returns for each client the positions
of its training examples (int64, ascending). No example is given to two clients, and every client gets at least one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedmtl.partitions.classes import class_partition
from fedmtl.partitions.dirichlet import dirichlet
from fedmtl.partitions.dirichlet_equal import dirichlet_equal
from fedmtl.partitions.dirichlet_joint import dirichlet_joint
from fedmtl.partitions.dual_dirichlet import dual_dirichlet
from fedmtl.partitions.extended_dirichlet import extended_dirichlet
from fedmtl.partitions.feature_skew import feature_skew
from fedmtl.partitions.iid import iid
from fedmtl.partitions.natural import natural
from fedmtl.partitions.pathological import pathological
from fedmtl.partitions.pathological_equal import pathological_equal
from fedmtl.partitions.quantity import quantity
from fedmtl.partitions.task_disjoint import task_disjoint

PARTITIONS: dict[str, Callable[..., list[np.ndarray]]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "dirichlet-equal": dirichlet_equal,
    "dirichlet-joint": dirichlet_joint,
    "extended-dirichlet": extended_dirichlet,
    "pathological": pathological,
    "pathological-equal": pathological_equal,
    "quantity": quantity,
    "natural": natural,
    "dual-dirichlet": dual_dirichlet,
    "class": class_partition,
    "task-disjoint": task_disjoint,
    "feature-skew": feature_skew,
}

__all__ = ["PARTITIONS"]
