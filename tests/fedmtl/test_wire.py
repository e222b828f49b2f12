"""What travels arrives bit by bit, and what arrives damaged is refused with a reason, whatever the damage."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import struct
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.parameters import Entry, ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings, Update
from fedmtl.state import order_state, update_state
from fedmtl.wire import Packet, WireError, pack, pack_order, pack_update, read_order, read_update, size, unpack

ENTRIES = (Entry("backbone.w", (2,), 0, 2), Entry("heads.a.w", (1,), 2, 3), Entry("heads.b.w", (1,), 3, 4))
LAYOUT = ParameterLayout(ENTRIES, slice(0, 2), (slice(2, 3), slice(3, 4)), slice(4, 4))
NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**53) + 1, 2**53 - 1)
VECTORS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4).map(torch.tensor)


def sent(packet: Packet) -> dict[str, Any]:
    """The packet as the receiver sees it."""

    def npy(array: np.ndarray) -> SimpleNamespace:
        file = io.BytesIO()
        np.save(file, array)
        return SimpleNamespace(data=file.getvalue())

    return {"state": {"json": packet.text}, "tensors": {name: npy(array) for name, array in packet.arrays.items()}}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


@st.composite
def orders(draw: st.DrawFn) -> TrainOrder:
    return TrainOrder(
        client=draw(st.integers(0, 10**6)),
        job=draw(st.integers(0, 10**6)),
        base=GlobalModel(draw(st.integers(0, 10**6)), draw(VECTORS), LAYOUT),
        steps=draw(st.none() | st.integers(1, 1000)),
        settings=TrainSettings(
            learning_rate=draw(st.floats(0, 1, exclude_min=True)), clip_by=draw(st.sampled_from(["model", "part"]))
        ),
        task_factors=draw(st.none() | st.tuples(st.floats(0, 2), st.floats(0, 2))),
        balancing=Balancing("some", {"rate": draw(st.floats(0, 1))}),
        policy="plain",
        terms=draw(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3)),
        vectors=draw(st.dictionaries(st.sampled_from(["c", "L"]), VECTORS)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@given(orders(), st.none() | st.dictionaries(st.text(max_size=4), NUMBERS | VECTORS, max_size=3))
def test_orders_and_observations_arrive_as_they_were_sent(order: TrainOrder, observed: Any) -> None:
    arrived, seen = read_order(sent(pack_order(order, observed)), LAYOUT)
    assert same(order_state(arrived), order_state(order))
    assert (seen is None) == (observed is None)
    assert same(seen or {}, observed or {})


def order() -> TrainOrder:
    base = GlobalModel(7, torch.zeros(4), LAYOUT)
    return TrainOrder(5, 2, base, None, TrainSettings(), None, Balancing(), "plain", {}, {}, 11)


def update(**changes: Any) -> Update:
    values = {"tasks": (0, 1), "task_losses": (0.5, 2.0), "terms": {"similarity": -0.25, "client_type": 1.0}}
    vectors = {"c": torch.tensor([1.0, 0.1, -3.5e-38, 0.0])}
    return Update(5, 2, 7, torch.tensor([0.1, 1e-40, -2.0, 3.0]), 10, 4, vectors=vectors, **{**values, **changes})


@pytest.mark.parametrize(("name", "words"), [("clip_by", "model, part"), ("tiny_clients", "keep_last_batch, .*")])
def test_an_order_to_train_in_a_way_that_this_version_does_not_know_is_refused(name: str, words: str) -> None:
    later = dataclasses.replace(order(), settings=dataclasses.replace(order().settings, **{name: "otherwise"}))
    with pytest.raises(WireError, match=f"'{name}': 'otherwise' where one of {words} was expected"):
        read_order(sent(pack_order(later, None)), LAYOUT)


def test_updates_arrive_as_they_were_sent_but_for_times_and_traffic() -> None:
    arrived = read_update(sent(pack_update(update(arrived_at=9.0, bytes_up=3))), order())
    assert same(update_state(arrived), update_state(update()))


def test_a_tensor_that_occurs_twice_travels_once() -> None:
    vector = torch.arange(4.0)
    packet = pack({"a": vector, "b": [vector]})
    assert len(packet.arrays) == 1
    arrived = unpack(sent(packet))
    assert arrived["a"] is arrived["b"][0]


def test_size_counts_text_and_arrays() -> None:
    content = sent(pack({"vector": torch.zeros(100)}))
    assert size(content) == len(content["state"]["json"]) + len(content["tensors"]["t0"].data)


DAMAGES = {
    "no records": ({}, "lacks a part"),
    "no mapping": ({"state": 3, "tensors": 4}, "lacks a part"),
    "text is a list": ({"state": {"json": [1]}, "tensors": {}}, "lacks a part"),
    "deep nesting": ({"state": {"json": "[" * 100_000}, "tensors": {}}, "cannot be read"),
    "unhashable reference": ({"state": {"json": '{"$tensor": []}'}, "tensors": {}}, "lacks a part"),
    "bytes of nothing": ({"state": {"json": "{}"}, "tensors": {"t": SimpleNamespace(data=b"")}}, "cannot be read"),
    "not bytes": ({"state": {"json": "{}"}, "tensors": {"t": SimpleNamespace(data="text")}}, "lacks a part"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_contents_are_refused(kind: str) -> None:
    content, reason = DAMAGES[kind]
    with pytest.raises(WireError, match=reason):
        unpack(content)


def npy(header: str, body: bytes, version: bytes = b"\x01\x00") -> dict[str, Any]:
    text = header.encode() + b"\n"
    data = b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body
    return {"state": {"json": '{"$tensor": "t"}'}, "tensors": {"t": SimpleNamespace(data=data)}}


def test_a_text_that_would_take_much_memory_is_refused_before_it_is_parsed() -> None:
    nested = "[" + "[]," * (1 << 23) + "[]]"
    tracemalloc.start()
    with pytest.raises(WireError, match="the text has 25165828 characters, expected at most 16777216"):
        unpack({"state": {"json": nested}, "tensors": {}})
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_an_array_that_claims_to_be_huge_takes_no_memory() -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"
    with pytest.raises(WireError, match="claims shape"):
        unpack(npy(header, b"1234"))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "expected one of"),
        ("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", "in C order"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }", "cannot be read|claims shape"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': 4, }", "cannot be read"),
        ("__import__('os')", "cannot be read"),
    ],
)
def test_arrays_with_strange_headers_are_refused(header: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        unpack(npy(header, b"0123456789abcdef"))


def test_a_zip_in_place_of_an_array_is_refused() -> None:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    with pytest.raises(WireError, match="cannot be read"):
        unpack({"state": {"json": "{}"}, "tensors": {"t": SimpleNamespace(data=file.getvalue())}})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"$tensor": "t0"}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = sorted(set(Update.__slots__) - {"dispatched_at", "arrived_at", "bytes_up", "bytes_down"})


@given(st.sampled_from(FIELDS), JUNK)
def test_whatever_stands_in_a_field_the_update_is_read_or_refused(field: str, junk: Any) -> None:
    """An update that is read has the types that its class promises."""
    packet = pack_update(update())
    text = json.dumps(json.loads(packet.text) | {field: junk})
    try:
        arrived = read_update(sent(Packet(text, packet.arrays)), order())
    except WireError:
        return
    assert arrived.key == (5, 2)
    assert isinstance(arrived.delta, torch.Tensor)
    assert all(isinstance(value, int | float) for value in (arrived.learning_rate, arrived.momentum, arrived.examples))
    assert set(arrived.tasks) <= {0, 1}
    assert len(arrived.task_losses) in (0, len(arrived.tasks))


def test_terms_travel_as_they_are_since_the_strategy_judges_them() -> None:
    """What a ledger follows it leaves out and counts, in a deployment as in a simulation."""
    read = read_update(sent(pack_update(update(terms={"similarity": float("nan"), "loss": 0.1}))), order())
    assert math.isnan(read.terms["similarity"])
    assert read.terms["loss"] == 0.1


@pytest.mark.parametrize("field", ["task_losses", "mean_task_weights", "task_traces"])
def test_numbers_that_are_not_finite_are_refused_unless_the_update_says_that_it_failed(field: str) -> None:
    diverged = {field: (float("nan"), 1.0)}
    with pytest.raises(WireError, match=f"{field} is not finite"):
        read_update(sent(pack_update(update(**diverged))), order())
    assert read_update(sent(pack_update(update(failure="loss is nan", **diverged))), order()).failure == "loss is nan"


def test_a_model_of_another_layout_is_refused() -> None:
    other = ParameterLayout(ENTRIES[:2], slice(0, 2), (slice(2, 3),), slice(3, 3))
    with pytest.raises(WireError, match=r"base is torch.float32 of shape \(4,\), expected float32 of shape \(3,\)"):
        read_order(sent(pack_order(order())), other)
