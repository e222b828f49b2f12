"""The compressor that sends the largest entries."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.compression import CompressionError, TopEntries, compressor_of
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Compression
from fedmtl.tasks import Task

TASKS = (Task("digit", "classification", 10), Task("flag", "binary"))
LAYOUT = ParameterLayout.of(build_model("mlp", {"hidden": (16, 8), "norm": "batch"}, (12,), TASKS, 0))
TRAINED = LAYOUT.buffers.start


def delta_of(seed: int) -> torch.Tensor:
    return torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), share=st.floats(1e-3, 1.0))
def test_the_largest_entries_arrive_as_they_were_and_statistics_whole(seed: int, share: float) -> None:
    compressor, delta = TopEntries(share=share), delta_of(seed)
    sent = compressor.compress(delta, LAYOUT, 0)
    assert len(sent) == compressor.most_entries(LAYOUT)
    found = compressor.restore(sent, LAYOUT, 0)
    kept = found[:TRAINED] != 0
    count = max(1, int(share * TRAINED))
    assert kept.sum() == count
    assert torch.equal(found[:TRAINED][kept], delta[:TRAINED][kept])
    assert delta[:TRAINED][kept].abs().min() >= delta[:TRAINED][~kept].abs().max() if count < TRAINED else True
    assert torch.equal(found[LAYOUT.buffers], delta[LAYOUT.buffers])


def test_a_server_restores_what_was_made_with_another_share() -> None:
    sent = TopEntries(share=0.3).compress(delta_of(0), LAYOUT, 0)
    assert torch.equal(TopEntries(share=0.9).restore(sent, LAYOUT, 0), TopEntries(share=0.3).restore(sent, LAYOUT, 0))


def test_all_entries_are_the_update_itself_and_zeros_are_zeros() -> None:
    for delta in (delta_of(1), torch.zeros(LAYOUT.size)):
        assert torch.equal(
            TopEntries(share=1.0).restore(TopEntries(share=1.0).compress(delta, LAYOUT, 0), LAYOUT, 0), delta
        )
    zeros = TopEntries(share=0.1)
    assert not zeros.restore(zeros.compress(torch.zeros(LAYOUT.size), LAYOUT, 0), LAYOUT, 0).any()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sent: sent[:-1],
        lambda sent: sent[: LAYOUT.size - TRAINED],
        lambda sent: sent.double(),
        lambda sent: sent.flip(0),
        lambda sent: torch.full_like(sent, float("nan")),
        lambda sent: torch.cat([sent, sent, sent, sent, sent, sent, sent, sent]),
    ],
    ids=["odd", "nothing", "double", "backwards", "nan", "too many"],
)
def test_what_no_client_made_is_refused(spoil) -> None:
    compressor = TopEntries(share=0.2)
    with pytest.raises(CompressionError):
        compressor.restore(spoil(compressor.compress(delta_of(2), LAYOUT, 0)), LAYOUT, 0)


def test_an_order_says_all_that_a_client_needs() -> None:
    given = TopEntries(share=0.4, memory=0.5)
    found = compressor_of(Compression(given.name, given.options, 3))
    assert found.options == given.options
    assert found.memory == 0.5
