"""Ferret's compressor (spec baselines, property 20)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.compression import CompressionError, SharedRandomness
from fedmtl.compression.shared_randomness import coordinate_count, entry_variance, groups_of
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.tasks import Task

TASKS = (Task("digit", "classification", 10), Task("flag", "binary"))
LAYOUT = ParameterLayout.of(build_model("mlp", {"hidden": (16, 8)}, (12,), TASKS, 0))


def delta_of(seed: int) -> torch.Tensor:
    return torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(seed))


def test_groups_are_the_whole_vector_in_order_and_none_is_small() -> None:
    groups = groups_of(LAYOUT)
    assert groups[0].start == 0
    assert groups[-1].stop == LAYOUT.size
    assert all(first.stop == second.start for first, second in itertools.pairwise(groups))
    sizes = sorted(entry.stop - entry.start for entry in LAYOUT.entries)
    assert all(group.stop - group.start >= 0.9 * sizes[len(sizes) // 2] for group in groups)
    assert groups_of(ParameterLayout((), slice(0, 4), (), slice(4, 5))) == [slice(0, 4)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scales=st.lists(st.floats(0, 1e6), min_size=1, max_size=8), most=st.integers(2, 60))
def test_every_group_has_two_to_k_coordinates(seed: int, scales: list[float], most: int) -> None:
    compressor, delta, groups = SharedRandomness(coordinates=most), delta_of(seed), groups_of(LAYOUT)
    for index, group in enumerate(groups):
        delta[group] *= scales[index % len(scales)]
    sent = compressor.compress(delta, LAYOUT, seed)
    counts = sent[: len(groups)].tolist()
    assert all(2 <= count <= most for count in counts)
    assert len(sent) == len(groups) + sum(counts) <= compressor.most_entries(LAYOUT)
    norms = [delta[group].norm().item() for group in groups]
    if max(norms) > 0:
        assert counts == [coordinate_count(norm, max(norms), most) for norm in norms]
        assert counts[norms.index(max(norms))] == most


def test_the_same_seed_gives_the_same_vectors_on_both_sides() -> None:
    client, server = SharedRandomness(coordinates=70), SharedRandomness(coordinates=70)
    sent = client.compress(delta_of(0), LAYOUT, 9)
    assert torch.equal(sent, server.compress(delta_of(0), LAYOUT, 9))
    assert torch.equal(client.restore(sent, LAYOUT, 9), server.restore(sent, LAYOUT, 9))
    assert not torch.equal(server.restore(sent, LAYOUT, 9), server.restore(sent, LAYOUT, 10))


def test_vectors_do_not_depend_on_how_many_are_asked_for() -> None:
    few, many = SharedRandomness(coordinates=10), SharedRandomness(coordinates=150)
    for count, compressor in ((10, few), (150, many)):
        rows = torch.cat(compressor._vectors(4, 2, 30, count))
        assert rows.shape == (count, 30)
        assert rows.abs().max() <= 1 / math.sqrt(30)
        assert torch.equal(rows[:10], torch.cat(few._vectors(4, 2, 30, 10)))


def test_an_update_of_zeros_sends_zeros_and_restores_to_zeros() -> None:
    compressor = SharedRandomness()
    sent = compressor.compress(torch.zeros(LAYOUT.size), LAYOUT, 1)
    groups = len(groups_of(LAYOUT))
    assert sent[:groups].tolist() == [2.0] * groups
    assert sent[groups:].abs().max() == 0
    assert compressor.restore(sent, LAYOUT, 1).abs().max() == 0


def test_no_term_of_a_restored_update_is_longer_than_the_clip() -> None:
    free, clipped = SharedRandomness(), SharedRandomness(clip=0.5)
    groups = len(groups_of(LAYOUT))
    sent = torch.zeros(3 * groups)
    sent[:groups] = 2.0  # two terms for each group
    sent[groups::2] = torch.linspace(0.2, 40.0, groups)
    whole, short = free.restore(sent, LAYOUT, 1), clipped.restore(sent, LAYOUT, 1)
    for group in groups_of(LAYOUT):
        length = torch.linalg.vector_norm(whole[group])
        expected = whole[group] * (0.5 / length).clamp(max=1.0)
        torch.testing.assert_close(short[group], expected)
    assert torch.equal(SharedRandomness(clip=100.0).restore(sent, LAYOUT, 1), whole)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_is_not_finite_stays_so(value: float) -> None:
    delta = delta_of(0)
    delta[3] = value
    compressor = SharedRandomness()
    restored = compressor.restore(compressor.compress(delta, LAYOUT, 1), LAYOUT, 1)
    assert not torch.isfinite(restored).all()


@pytest.mark.parametrize("d", [2, 30, 5000])
def test_the_variance_of_an_entry_is_that_of_the_truncated_normal(d: int) -> None:
    rows = torch.cat(SharedRandomness()._vectors(0, 0, d, 64 * math.ceil(4_000 / d))).double()
    # So many draws know a variance to about two parts in a hundred.
    assert rows.var().item() == pytest.approx(entry_variance(d), rel=0.05)
    assert entry_variance(5000) == pytest.approx(1 / (3 * 5000), rel=1e-3)


def test_restored_updates_are_right_on_average_and_the_shrunken_ones_nearest() -> None:
    delta = delta_of(0)
    restored = {
        scale: torch.stack([c.restore(c.compress(delta, LAYOUT, seed), LAYOUT, seed) for seed in range(150)])
        for scale in ("unbiased", "least-error", "dimension")
        for c in [SharedRandomness(coordinates=20, scale=scale)]
    }
    # The mean of 150 is off by the length of one over sqrt(150).
    one = (restored["unbiased"] - delta).norm(dim=1).mean()
    assert (restored["unbiased"].mean(0) - delta).norm() < 2 * one / math.sqrt(150)
    errors = {scale: (found - delta).square().sum(1).mean().item() for scale, found in restored.items()}
    assert errors["least-error"] < errors["dimension"] < errors["unbiased"]
    assert errors["least-error"] < delta.square().sum()


def test_the_coordinates_are_those_of_the_formula() -> None:
    compressor, delta = SharedRandomness(coordinates=5, scale="dimension"), delta_of(2)
    groups = groups_of(LAYOUT)
    sent = compressor.compress(delta, LAYOUT, 3)
    counts = [int(count) for count in sent[: len(groups)]]
    coordinates = sent[len(groups) :].split(counts)
    for index, (group, count, found) in enumerate(zip(groups, counts, coordinates, strict=True)):
        v = torch.cat(compressor._vectors(3, index, group.stop - group.start, count))
        torch.testing.assert_close(found, v @ delta[group] * (group.stop - group.start) / count)
        torch.testing.assert_close(compressor.restore(sent, LAYOUT, 3)[group], found @ v)


def test_averaging_restored_updates_is_averaging_coordinates() -> None:
    compressor = SharedRandomness(coordinates=8)
    groups = len(groups_of(LAYOUT))
    sent = [compressor.compress(delta_of(seed), LAYOUT, 3) for seed in range(2)]
    if not torch.equal(sent[0][:groups], sent[1][:groups]):
        # With other counts the shorter one has zeros for the coordinates that it does not send.
        sent = [compressor.compress(delta_of(0) * factor, LAYOUT, 3) for factor in (1.0, -3.0)]
    mean = torch.cat([sent[0][:groups], (sent[0] + sent[1])[groups:] / 2])
    average = sum(compressor.restore(one, LAYOUT, 3) for one in sent) / 2
    torch.testing.assert_close(compressor.restore(mean, LAYOUT, 3), average, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "sent",
    [
        torch.zeros(3),
        torch.zeros(LAYOUT.size),
        torch.full((40,), math.nan),
        torch.full((40,), 2.5),
        torch.full((40,), 1e9),
        torch.zeros(40, dtype=torch.float64),
        torch.zeros(4, 10),
    ],
    ids=range(7),
)
def test_what_no_compressor_made_is_refused(sent: torch.Tensor) -> None:
    with pytest.raises(CompressionError):
        SharedRandomness().restore(sent, LAYOUT, 0)
