"""Who talks to whom where there is no server: graphs, and the weights of a gossip step on them.

A gossip step replaces every node's model by a weighted mean of its neighbours' and its own, ``X <- W X``. The weights
are Metropolis's: with the degrees d_i,

    W_il = 1 / (1 + max(d_i, d_l))    for neighbours,    W_ii = 1 - sum_l W_il.

W is symmetric and not negative, its rows sum to 1, and so do its columns, on any graph: a gossip step leaves the mean
of the models as it is. On the full graph every entry is 1/N.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmtl.components import Param
from fedmtl.randomness import numpy_generator

TopologyName = Literal["ring", "full", "random", "expander"]
TopologyOption = Annotated[TopologyName, Param("who talks to whom; a random graph is new in each round")]
Degree = Annotated[int, Param("neighbours of a client in a random graph or an expander, at most", ge=2)]
Edges = NDArray[np.int64]
"""Undirected edges, each once, without loops: shape [edges, 2], the smaller node first."""


@dataclass(frozen=True)
class Topology:
    """A graph on any number of nodes, for each version of a run.

    Attributes
    ----------
    name
        ``"ring"``; ``"full"``; ``"expander"``, the union of random rings, drawn once; ``"random"``, such a union drawn
        anew for each version.
    degree
        Neighbours of a node, at most, in the last two: two per ring.

    Examples
    --------
    Five nodes in a ring, and what a node of it takes of each other's model in a gossip step:

    >>> from strategies.aggregators.topologies import Topology, mixing
    >>> edges = Topology("ring").edges(nodes=5, seed=0, version=0)
    >>> edges.tolist()
    [[0, 1], [0, 4], [1, 2], [2, 3], [3, 4]]
    >>> mixing(edges, nodes=5).to_dense()[0].round(decimals=3)
    tensor([0.3330, 0.3330, 0.0000, 0.0000, 0.3330])
    """

    name: TopologyName = "ring"
    degree: int = 4

    def edges(self, nodes: int, seed: int, version: int) -> Edges:
        """The graph of a version."""
        if self.name == "full":
            first, second = np.triu_indices(nodes, 1)
            return np.stack([first, second], axis=1).astype(np.int64)
        if self.name == "ring":
            return _simple(_ring(np.arange(nodes)))
        drawn = numpy_generator(seed, "topology", version if self.name == "random" else 0, nodes)
        return _simple(np.concatenate([_ring(drawn.permutation(nodes)) for _ in range(max(1, self.degree // 2))]))


def _ring(order: NDArray[np.int64]) -> Edges:
    return np.stack([order, np.roll(order, -1)], axis=1).astype(np.int64)


def _simple(edges: Edges) -> Edges:
    """Each edge once, and no loops."""
    edges = np.sort(edges, axis=1)
    return np.unique(edges[edges[:, 0] < edges[:, 1]], axis=0).reshape(-1, 2)


def without(edges: Edges, absent: Collection[int]) -> Edges:
    """The graph in which these nodes talk to nobody."""
    kept: Edges = edges[~np.isin(edges, list(absent)).any(axis=1)]
    return kept


def degrees(edges: Edges, nodes: int) -> NDArray[np.int64]:
    """Neighbours of each node."""
    return np.bincount(edges.ravel(), minlength=nodes)


def mixing(edges: Edges, nodes: int) -> Tensor:
    """W with Metropolis's weights, float32, shape [nodes, nodes]; sparse where most entries are 0."""
    degree = degrees(edges, nodes)
    weights = 1.0 / (1.0 + degree[edges].max(axis=1, initial=0))
    own = 1.0 - np.bincount(edges.ravel(), np.repeat(weights, 2), minlength=nodes)
    diagonal = np.arange(nodes)
    rows = np.concatenate([edges[:, 0], edges[:, 1], diagonal])
    columns = np.concatenate([edges[:, 1], edges[:, 0], diagonal])
    values = torch.from_numpy(np.concatenate([weights, weights, own])).float()
    sparse = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows, columns])), values, (nodes, nodes), check_invariants=True
    )
    return sparse if 4 * len(values) < nodes * nodes else sparse.to_dense()
