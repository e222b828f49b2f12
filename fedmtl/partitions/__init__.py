"""Partitions: how examples are spread over clients.

A partition is a function ``partition(pool, clients, seed, *, options...)`` that returns for each client the positions
of its training examples (int64, ascending). No example is given to two clients, and every client gets at least one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fedmtl.partitions.dirichlet import dirichlet
from fedmtl.partitions.iid import iid

PARTITIONS: Mapping[str, Callable[..., list[np.ndarray]]] = {
    "iid": iid,
    "dirichlet": dirichlet,
}

__all__ = ["PARTITIONS"]
