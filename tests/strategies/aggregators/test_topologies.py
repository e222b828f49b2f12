"""Graphs and mixing matrices (spec baselines, property 18)."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from strategies.aggregators.topologies import Topology, TopologyName, degrees, mixing, without

every_topology = pytest.mark.parametrize("name", get_args(TopologyName))


def dense(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.to_dense() if matrix.is_sparse else matrix


@every_topology
@given(nodes=st.integers(1, 40), seed=st.integers(0, 1000), version=st.integers(0, 9), data=st.data())
def test_weights_are_doubly_stochastic_whoever_is_absent(name, nodes, seed, version, data) -> None:
    edges = Topology(name, 4).edges(nodes, seed, version)
    absent = data.draw(st.sets(st.integers(0, nodes - 1)))
    w = dense(mixing(without(edges, absent), nodes))
    assert w.min() >= 0
    assert torch.equal(w, w.T)
    # A sum of 40 float32 numbers.
    torch.testing.assert_close(w.sum(0), torch.ones(nodes), rtol=0, atol=1e-5)
    for node in absent:
        assert w[node, node] == 1


@pytest.mark.slow
@every_topology
@given(nodes=st.integers(2, 40), seed=st.integers(0, 1000))
def test_graphs_are_simple_and_connected(name, nodes, seed) -> None:
    edges = Topology(name, 4).edges(nodes, seed, 0)
    assert (edges[:, 0] < edges[:, 1]).all()
    assert len({tuple(edge) for edge in edges.tolist()}) == len(edges)
    w = dense(mixing(edges, nodes)).double()
    assert (torch.linalg.matrix_power(w, 2 * nodes) > 0).all()


def test_degrees_are_as_asked() -> None:
    assert set(degrees(Topology("ring").edges(9, 0, 0), 9)) == {2}
    assert set(degrees(Topology("full").edges(9, 0, 0), 9)) == {8}
    for name in ("random", "expander"):
        found = degrees(Topology(name, 6).edges(50, 0, 0), 50)
        assert found.max() <= 6
        assert found.min() >= 2


def test_a_random_graph_is_new_in_each_round_and_an_expander_is_not() -> None:
    def graphs(name: TopologyName) -> int:
        return len({Topology(name, 4).edges(20, 3, version).tobytes() for version in range(5)})

    assert graphs("random") == 5
    assert graphs("expander") == 1
    assert not np.array_equal(Topology("expander").edges(20, 1, 0), Topology("expander").edges(20, 2, 0))


def test_on_the_full_graph_everybody_counts_the_same() -> None:
    torch.testing.assert_close(mixing(Topology("full").edges(8, 0, 0), 8), torch.full((8, 8), 1 / 8))


def test_an_expander_mixes_faster_than_a_ring() -> None:
    def second(name: TopologyName) -> float:
        w = dense(mixing(Topology(name, 6).edges(40, 0, 0), 40)).double()
        return torch.linalg.eigvalsh(w)[-2].item()

    assert second("expander") < 0.8 < second("ring")
