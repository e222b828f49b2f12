"""Vectors that several orders share are stored once, and no longer than an order needs them."""

from __future__ import annotations

from typing import Any

import torch

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings
from simulations.workers.vectors import SharedVectors

LARGE = 100
NOWHERE = slice(0, 0)
LAYOUT = ParameterLayout((), NOWHERE, (), NOWHERE)


class Store:
    """Counts what is put."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []

    def put(self, array: Any) -> str:
        self.arrays.append(array)
        return f"reference {len(self.arrays)}"


def order(base: torch.Tensor, **vectors: torch.Tensor) -> TrainOrder:
    model = GlobalModel(0, base, LAYOUT)
    return TrainOrder(0, 0, model, None, TrainSettings(), None, Balancing(), "plain", {}, vectors, 0)


def test_a_large_vector_is_stored_when_first_sent_and_once() -> None:
    store, base, control = Store(), torch.ones(LARGE), torch.zeros(LARGE)
    shared = SharedVectors(store.put, least_bytes=4 * LARGE)
    for _ in range(3):
        shared.hold(order(base, control=control))
    assert not store.arrays
    assert [shared.argument(base) for _ in range(2)] == ["reference 1"] * 2
    assert shared.argument(control) == "reference 2"
    assert [torch.equal(torch.from_numpy(a), v) for a, v in zip(store.arrays, (base, control), strict=True)] == [
        True
    ] * 2


def test_a_vector_is_let_go_with_the_last_order_that_needs_it() -> None:
    store, base = Store(), torch.ones(LARGE)
    shared = SharedVectors(store.put, least_bytes=4 * LARGE)
    first, second = order(base), order(base)
    shared.hold(first)
    shared.hold(second)
    shared.argument(base)
    shared.release(first)
    assert (len(shared), shared.stored) == (1, 1)
    shared.release(second)
    assert (len(shared), shared.stored) == (0, 0)


def test_small_vectors_and_those_of_no_order_go_along_as_they_are() -> None:
    store, small, own = Store(), torch.ones(LARGE - 1), torch.ones(LARGE)
    shared = SharedVectors(store.put, least_bytes=4 * LARGE)
    shared.hold(order(small))
    assert torch.equal(torch.from_numpy(shared.argument(small)), small)
    assert torch.equal(torch.from_numpy(shared.argument(own)), own)
    assert not store.arrays
