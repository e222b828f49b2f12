"""A packed state comes back with every type and bit."""

from __future__ import annotations

import enum
import math
import struct
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmtl.packing import pack, unpack
from fedmtl.protocol import JobKey

INTEGERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 2**127 + 1, -(2**64)]),
    st.integers(-(2**130), 2**130),
)
FLOATS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, math.inf, -math.inf, 5e-324, 1.0, 2.0**53]))
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, st.text(max_size=4), st.just("\ud800"))
TENSORS = st.sampled_from(
    [
        torch.tensor([1.0, -0.0, math.nan, math.inf]),
        torch.tensor([1.0, -0.0, math.nan, math.inf]),
        torch.arange(6, dtype=torch.int64).view(2, 3).t(),
        torch.tensor([True, False]),
        torch.tensor(2.5, dtype=torch.float64),
        torch.tensor([1.5], dtype=torch.bfloat16),
        torch.zeros(0, 3),
        torch.tensor([7], dtype=torch.uint8),
    ]
)


def containers(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Short lists, long ones of one kind, rows of one length, records with the same fields, and nested mixtures."""
    record = st.fixed_dictionaries({"$tensor": entries, "": entries}, optional={"x": entries})
    return st.one_of(
        st.lists(entries, max_size=5),
        st.lists(entries, min_size=16, max_size=24),
        st.lists(st.tuples(INTEGERS, FLOATS, entries), min_size=16, max_size=20),
        st.lists(record, min_size=16, max_size=20),
        st.lists(st.lists(INTEGERS, max_size=3), min_size=16, max_size=20),
        st.builds(lambda value, count: [value] * count, entries, st.integers(16, 40)),
        st.dictionaries(st.text(max_size=3), entries, max_size=4),
        st.tuples(entries, entries),
    )


STATES = st.recursive(st.one_of(SCALARS, TENSORS), containers, max_leaves=12)


def same(found: Any, value: Any) -> bool:
    """Whether a value is what a state gives back: tuples are lists then, and a NaN is a NaN."""
    if isinstance(value, Tensor):
        return (
            type(found) is Tensor
            and found.dtype == value.dtype
            and found.shape == value.shape
            and found.contiguous().view(-1).view(torch.uint8).tolist()
            == value.contiguous().view(-1).view(torch.uint8).tolist()
        )
    if isinstance(value, list | tuple):
        return type(found) is list and len(found) == len(value) and all(map(same, found, value))
    if isinstance(value, dict):
        return type(found) is dict and list(found) == list(value) and all(same(found[key], value[key]) for key in value)
    if isinstance(value, float):
        bits = struct.pack("d", found) == struct.pack("d", value)
        return type(found) is float and (bits or (math.isnan(found) and math.isnan(value)))
    return type(found) is type(value) and found == value


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(STATES)
def test_every_state_comes_back_with_its_types_and_bits(state: Any) -> None:
    assert same(unpack(pack(state)), state)


@pytest.mark.parametrize(
    "values",
    [
        [True, 1, 1.0, None, "1"] * 8,
        [1] * 16 + [True],
        [0.0] * 16 + [-0.0],
        [2**53 + 1] * 16 + [2**53],
        [2**63 + place for place in range(20)],
        [-1, 2**63] * 10,
        [1 << 127 | place for place in range(20)],  # as the states of generators have
        [math.nan] * 20,
        [f"text {place}" for place in range(300)],
        [{str(place): place} for place in range(300)],
        [[]] * 20,
        [{}] * 20,
        [[0] * 40] * 20,
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}] * 10,
        [*range(100), None],
    ],
    ids=lambda values: f"{type(values[0]).__name__}-{len(values)}",
)
def test_long_lists_keep_what_looks_alike_apart(values: list[Any]) -> None:
    assert same(unpack(pack({"values": values}))["values"], values)


def test_a_nan_in_a_column_keeps_its_bits() -> None:
    odd = struct.unpack("d", struct.pack("Q", 0xFFF8_0000_0000_0BAD))[0]
    back = unpack(pack([odd, *[1.0] * 20]))
    assert struct.pack("d", back[0]) == struct.pack("d", odd)


def test_a_tensor_that_occurs_twice_is_stored_once_and_is_one_tensor_again() -> None:
    vector = torch.arange(1000.0)
    packed = pack([{"base": vector} for _ in range(100)] + [{"base": vector.clone()}])
    assert sum(tensor.numel() for name, tensor in packed.items() if name.startswith("tensors")) == 2000
    back = unpack(packed)
    assert back[0]["base"] is back[99]["base"]
    assert back[0]["base"] is not back[100]["base"]


def test_tensors_that_come_back_share_no_memory_and_begin_where_new_ones_do() -> None:
    back = unpack(pack([torch.full((3,), float(row)) for row in range(40)]))
    assert len({tensor.untyped_storage().data_ptr() for tensor in back}) == 40
    assert all(tensor.storage_offset() == 0 for tensor in back)


def test_entries_that_were_equal_are_not_one_object_again() -> None:
    back = unpack(pack([{"terms": {}, "tasks": []} for _ in range(20)]))
    back[0]["terms"]["x"] = 1
    back[0]["tasks"].append(1)
    assert back[1] == {"terms": {}, "tasks": []}


def test_subclasses_come_back_as_what_they_are_made_of() -> None:
    class Colour(enum.IntEnum):
        RED = 3

    class Word(enum.StrEnum):
        YES = "yes"

    back = unpack(pack([JobKey(1, 2), np.float64(0.5), Colour.RED, Word.YES]))
    assert same(back, [[1, 2], 0.5, 3, "yes"])
    assert same(unpack(pack([np.float64(0.5), Colour.RED] * 10)), [0.5, 3] * 10)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"seen": {1, 2}}, "a state holds set"),
        ([{"seen": np.int64(3)}] * 20, "a state holds int64"),
        ({"counts": {3: 1}}, "the key 3: keys are texts"),
        ([{3: 1}] * 20, "the key 3: keys are texts"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(state: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        pack(state)


def test_lists_of_equal_form_cost_as_much_as_their_numbers() -> None:
    """Two integers and a float of 8 bytes, a flag of 1, and nothing for what is always the same."""
    orders = [
        {"client": c, "at": c * 0.1, "seed": c * 7919, "odd": c % 2 == 1, "settings": {"epochs": 1, "clip": None}}
        for c in range(10_000)
    ]
    packed = pack({"orders": orders})
    assert sum(tensor.nbytes for tensor in packed.values()) < 10_000 * 25 + 1000
