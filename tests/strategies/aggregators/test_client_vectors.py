from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.randomness import torch_generator
from fedmtl.state import split
from strategies.aggregators.client_vectors import ClientVectors, Share
from strategies.aggregators.storage import Kept, StorageName, new_storage

EVERY: tuple[StorageName, ...] = ("single", "half", "disk")
# Half precision has 11 bits: entries of up to 4 are kept to within 2^-10.
TOLERANCE = {"single": 1e-6, "disk": 1e-6, "half": 2e-3}

every_storage = pytest.mark.parametrize("storage", EVERY)


def vector(*numbers: int) -> Tensor:
    return torch.randn(9, generator=torch_generator(0, "vector", *numbers))


def empty(toys, storage: StorageName = "single", start: Tensor | None = None) -> ClientVectors:
    return ClientVectors(new_storage(storage), toys.LAYOUT, torch.zeros(9) if start is None else start)


@every_storage
@pytest.mark.parametrize("given_", [Kept(vector(0)), Kept(None, vector(0)), Kept(vector(0), vector(1))])
def test_what_is_kept_is_the_vector(storage: StorageName, given_: Kept) -> None:
    kept = new_storage(storage)
    wanted = sum(part for part in given_ if part is not None)
    assert given_.whole.equal(wanted)
    if storage == "half":
        wanted = wanted.half().float()
    returned, found = kept.put(7, given_), kept.get(7)
    assert returned.whole.equal(wanted)
    assert found.whole.equal(wanted)
    assert kept.get(8) is None
    assert list(kept.clients()) == [7]
    kept.put(7, Kept(wanted))
    assert kept.get(7).whole.equal(wanted)
    assert len(kept.clients()) == 1


def test_in_memory_nothing_is_copied_and_a_state_has_a_shared_base_once() -> None:
    kept, base, updates = new_storage("single"), vector(0), [vector(1), vector(2)]
    for client, update in enumerate(updates):
        kept.put(client, Kept(update, base))
    assert all(kept.get(client).update is update for client, update in enumerate(updates))
    assert all(kept.get(client).base is base for client in range(2))
    assert len(split(kept.state_dict())[1]) == 3


def test_half_precision_keeps_what_is_too_large_for_it_finite() -> None:
    kept = new_storage("half")
    kept.put(0, Kept(torch.tensor([1e30, -1e30, 1.0])))
    assert kept.get(0).whole.tolist() == [65504.0, -65504.0, 1.0]


clients = st.integers(0, 5)
weights = st.sampled_from([1.0, 7.0])
tasks = st.sampled_from([(0, 1), (0,), (1,)])
changes = st.lists(st.tuples(clients, st.none() | weights, tasks), max_size=25)


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
        one, other = vector(client, number), vector(client, number, 1)
        rows[client] = one if weight is None else one + other
        if weight is None:
            others = [client, (client + 1) % 6]
            rows[others[1]] = one
            vectors.put(others, one)
        else:
            vectors.report([(client, Kept(one, other), Share(weight, tasks))])
            shares[client] = (weight, tasks)
    wanted = brute_force(rows, shares, start, current, toys)
    assert torch.allclose(vectors.mean(6, current), wanted, atol=TOLERANCE[storage], rtol=0)


@pytest.mark.slow
@every_storage
@given(steps=st.lists(st.lists(st.tuples(clients, weights, tasks), max_size=4), max_size=6))
def test_a_report_tells_by_what_the_weighted_vectors_changed(toys, storage: StorageName, steps: list) -> None:
    vectors = empty(toys, storage)
    layout: ParameterLayout = toys.LAYOUT
    last: dict[int, tuple[Tensor, Share]] = {}
    for number, step in enumerate(steps):
        reports = [(client, vector(client, number, i), Share(*share)) for i, (client, *share) in enumerate(step)]
        change = vectors.report([(client, Kept(new), share) for client, new, share in reports])
        alike = all(last.get(client, (None, share))[1] == share for client, _, share in reports)
        distinct = len({client for client, _, _ in reports}) == len(reports)
        assert (change is not None) == bool(storage == "single" and alike and distinct and reports)
        if change is not None:
            wanted = torch.zeros(9)
            for client, new, (weight, owned) in reports:
                difference = weight * (new - last[client][0] if client in last else new)
                for task, head in enumerate(layout.heads):
                    if task not in owned:
                        difference[head] = 0.0
                wanted += difference
            # Some roundings of entries of up to 4 with weights of up to 7, in another order.
            torch.testing.assert_close(change, wanted, atol=1e-4, rtol=0)
        last |= {client: (new, share) for client, new, share in reports}


@every_storage
def test_vectors_go_on_from_their_state(toys, storage: StorageName) -> None:
    first = empty(toys, storage, vector(9))
    first.put([3], vector(1))
    first.report([(1, Kept(vector(2), vector(5)), Share(4.0, (1,)))])
    second = empty(toys, storage)
    second.load_state_dict(toys.through_json(first.state_dict()))
    for vectors in (first, second):
        vectors.report([(3, Kept(vector(3)), Share(2.0, (0, 1)))])
    assert first.mean(5, vector(4)).equal(second.mean(5, vector(4)))
    assert first.get(0).equal(second.get(0))
    assert first.get(1).equal(second.get(1))


def test_a_sum_does_not_drift_while_models_hardly_change(toys) -> None:
    """Bases of 1/3 with weights of 7 are rounded in single precision, each time the same way."""
    vectors, weight = empty(toys), 7.0
    model = torch.full((9,), 1.0 / 3.0)
    for _ in range(2000):
        model = model.clone()
        vectors.report([(client, Kept(torch.zeros(9), model), Share(weight, (0, 1))) for client in range(3)])
    # One rounding to single precision and one of the division.
    torch.testing.assert_close(vectors.mean(3), model, atol=0, rtol=2.4e-7)
