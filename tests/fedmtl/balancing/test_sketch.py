"""Sketches keep products, on average and within the bound of their variance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.balancing.sketch import Projection
from fedmtl.randomness import torch_generator


def vectors(seed: int, entries: int, count: int = 2) -> torch.Tensor:
    """Few large coordinates and many small ones, as gradients have."""
    generator = torch_generator(seed, "vectors")
    return torch.randn(count, entries, generator=generator) * torch.randn(entries, generator=generator).exp()


@pytest.mark.parametrize(("entries", "size"), [(50, 8), (1000, 64), (40_000, 256)])
def test_products_are_right_on_average_and_their_variance_is_within_the_bound(entries: int, size: int) -> None:
    """Over n projections the mean is off by at most 5 standard errors, and the mean square by what chance allows.

    A product's error over its bound has mean square at most 1; the mean of n such squares exceeds 1 + 5 sqrt(15 / n)
    practically never, as the fourth moment of a sum of random signs is at most 15 times its squared variance.
    """
    rows = vectors(entries, entries)
    true = (rows @ rows.T).double()
    draws = 300
    found = torch.stack([(s @ s.T).double() for s in (Projection(size, seed)(rows) for seed in range(draws))])
    sizes = true.diagonal()
    bound = (sizes.outer(sizes) + true.square()) / size
    assert ((found.mean(0) - true).abs() <= 5 * (bound / draws).sqrt()).all()
    assert ((found - true).square().mean(0) <= bound * (1 + 5 * math.sqrt(15 / draws))).all()


@given(entries=st.integers(1, 40), more=st.integers(0, 10), seed=st.integers(0, 2**62))
def test_with_as_many_numbers_as_coordinates_products_are_exact(entries: int, more: int, seed: int) -> None:
    """Every coordinate has a place of its own, so only the order of the sums differs."""
    rows = vectors(seed % 1000, entries, 3)
    sketches = Projection(entries + more, seed)(rows)
    assert torch.allclose(sketches @ sketches.T, rows @ rows.T, rtol=1e-5, atol=1e-5 * rows.square().sum().item())
    magnitudes = sketches[0].abs().sort(descending=True).values[:entries]
    assert torch.equal(magnitudes, rows[0].abs().sort(descending=True).values)


@given(entries=st.integers(0, 400), size=st.integers(1, 40), seed=st.integers(0, 2**62))
def test_adding_by_index_and_gathering_give_the_same(entries: int, size: int, seed: int) -> None:
    """A GPU gathers, for the sake of a fixed order; sums differ by rounding alone."""
    projection = Projection(size, seed)
    rows = vectors(3, entries)
    gathered = projection._gathered(rows, projection._places_of(entries, rows.device))
    assert torch.allclose(projection(rows), gathered, rtol=1e-5, atol=1e-5 * (1.0 + rows.abs().sum().item()))


def test_sketches_of_batches_add_to_the_sketch_of_their_mean() -> None:
    rows, projection = vectors(1, 5000, 4), Projection(32, 7)
    assert torch.allclose(projection(rows).mean(0), projection(rows.mean(0, keepdim=True))[0], atol=1e-4)


def test_the_projection_is_its_seed_s_in_any_process() -> None:
    """Numbers that were written down: what a client of another version must make of this vector, too."""
    rows = torch.arange(1.0, 8.0).unsqueeze(0)
    assert Projection(3, 5)(rows).tolist() == [[3.0, 2.0, 11.0]]
    assert torch.equal(Projection(3, 5)(rows), Projection(3, 5)(rows))
    assert not torch.equal(Projection(3, 5)(rows), Projection(3, 6)(rows))
