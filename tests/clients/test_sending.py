"""What does not go up is remembered, if the compressor has a memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from clients.sending import send_compressed
from fedmtl.compression import TopEntries
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, Compression, GlobalModel, TrainOrder, TrainSettings, Update
from fedmtl.tasks import Task

MODEL = build_model("mlp", {"hidden": (6,)}, (4,), (Task("kind", "classification", 3),), 0)
LAYOUT = ParameterLayout.of(MODEL)
ORDER = TrainOrder(
    client=0,
    job=0,
    base=GlobalModel(0, LAYOUT.pack(MODEL), LAYOUT),
    steps=None,
    settings=TrainSettings(),
    task_factors=None,
    balancing=Balancing(),
    policy="plain",
    terms={},
    vectors={},
    seed=0,
)


def order(**options: float) -> TrainOrder:
    return dataclasses.replace(ORDER, compression=Compression("top-entries", {"share": 0.2, **options}, 0))


def update(delta: torch.Tensor, failure: str | None = None) -> Update:
    return Update(client=0, job=0, base_version=0, delta=delta, examples=5, steps=1, failure=failure)


@pytest.mark.parametrize("memory", [1.0, 0.5])
def test_all_that_was_learned_is_sent_in_the_end(memory: float) -> None:
    generator = torch.Generator().manual_seed(0)
    state: dict = {}
    compressor = TopEntries(share=0.2)
    unsent = torch.zeros(LAYOUT.size)
    for _ in range(5):
        delta = torch.randn(LAYOUT.size, generator=generator)
        made = update(delta.clone())
        send_compressed(order(memory=memory), made, state)
        arrived = compressor.restore(made.delta, LAYOUT, 0)
        torch.testing.assert_close(arrived + state["unsent"] / memory, delta + unsent)
        unsent = state["unsent"]


def test_without_a_memory_nothing_is_kept() -> None:
    state: dict = {}
    send_compressed(order(memory=0.0), update(torch.randn(LAYOUT.size)), state)
    assert state == {}


def test_what_the_server_turns_down_is_not_remembered() -> None:
    state: dict = {}
    send_compressed(order(), update(torch.full((LAYOUT.size,), float("nan"))), state)
    send_compressed(order(), update(torch.randn(LAYOUT.size), "a loss was not finite"), state)
    assert state == {}


def test_an_order_without_compression_changes_nothing() -> None:
    delta = torch.randn(LAYOUT.size)
    made = update(delta)
    assert send_compressed(ORDER, made, {}) is None
    assert made.delta is delta
