from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmtl.randomness import torch_generator
from strategies.client_vectors import ClientVectors, StorageName, new_storage

EVERY: tuple[StorageName, ...] = ("single", "half", "disk")
# Half precision has 11 bits: entries of up to 4 are kept to within 2^-10.
TOLERANCE = {"single": 1e-6, "disk": 1e-6, "half": 2e-3}

every_storage = pytest.mark.parametrize("storage", EVERY)


def vector(*numbers: int) -> Tensor:
    return torch.randn(9, generator=torch_generator(0, "vector", *numbers))


def empty(toys, storage: StorageName = "single", start: Tensor | None = None) -> ClientVectors:
    return ClientVectors(new_storage(storage), toys.LAYOUT, torch.zeros(9) if start is None else start)


@every_storage
def test_what_is_kept_is_a_copy(storage: StorageName) -> None:
    kept, given_ = new_storage(storage), vector(0)
    wanted = given_.half().float() if storage == "half" else given_.clone()
    kept.put(7, given_)
    given_.zero_()
    assert kept.get(7).equal(wanted)
    assert kept.get(8) is None
    assert list(kept.clients()) == [7]


def test_half_precision_keeps_what_is_too_large_for_it_finite() -> None:
    kept = new_storage("half")
    kept.put(0, torch.tensor([1e30, -1e30, 1.0]))
    assert kept.get(0).tolist() == [65504.0, -65504.0, 1.0]


changes = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from([None, 1.0, 7.0]),
        st.sampled_from([(0, 1), (0,), (1,)]),
    ),
    max_size=25,
)


def brute_force(rows: dict, shares: dict, start: Tensor, current: Tensor, toys) -> Tensor:
    """The mean over six clients, formed anew."""
    typical = sum(weight for weight, _ in shares.values()) / len(shares) if shares else 1.0
    result = current.clone()
    layout = toys.LAYOUT
    for index, part in enumerate([layout.shared, *layout.heads, layout.buffers]):
        total, mass = torch.zeros_like(result[part], dtype=torch.float64), 0.0
        for client in range(6):
            weight, tasks = shares.get(client, (typical, (0, 1)))
            if index - 1 in (0, 1) and index - 1 not in tasks:
                continue
            total += weight * rows.get(client, start)[part].double()
            mass += weight
        if mass:
            result[part] = (total / mass).float()
    return result


@every_storage
@given(steps=changes)
def test_the_mean_is_the_one_formed_anew_after_any_changes(toys, storage: StorageName, steps: list) -> None:
    start, current = vector(100), vector(101)
    vectors = empty(toys, storage, start)
    rows: dict[int, Tensor] = {}
    shares: dict[int, tuple[float, tuple[int, ...]]] = {}
    for number, (client, weight, tasks) in enumerate(steps):
        rows[client] = vector(client, number)
        if weight is None:
            vectors.put(client, rows[client])
        else:
            vectors.report(client, rows[client], weight, tasks)
            shares[client] = (weight, tasks)
    wanted = brute_force(rows, shares, start, current, toys)
    assert torch.allclose(vectors.mean(6, current), wanted, atol=TOLERANCE[storage], rtol=0)


@every_storage
def test_vectors_go_on_from_their_state(toys, storage: StorageName) -> None:
    first = empty(toys, storage, vector(9))
    first.put(3, vector(1))
    first.report(1, vector(2), 4.0, (1,))
    second = empty(toys, storage)
    second.load_state_dict(toys.through_json(first.state_dict()))
    for vectors in (first, second):
        vectors.report(3, vector(3), 2.0, (0, 1))
    assert first.mean(5, vector(4)).equal(second.mean(5, vector(4)))
    assert first.get(0).equal(second.get(0))
    assert first.get(1).equal(second.get(1))
