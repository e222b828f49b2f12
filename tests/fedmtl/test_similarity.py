from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.similarity import SIMILARITIES, dissimilarity

every_measure = pytest.mark.parametrize("name", SIMILARITIES)
SIZE = 40


def vector(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def test_angles_in_degrees() -> None:
    a = torch.tensor([3.0, 0.0, 0.0])
    assert dissimilarity(a, torch.tensor([0.0, 2.0, 0.0])) == pytest.approx(90.0)
    assert dissimilarity(a, torch.tensor([0.5, 0.0, 0.0])) == 0.0
    assert dissimilarity(a, torch.tensor([-7.0, 0.0, 0.0])) == 180.0
    assert dissimilarity(a, torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(45.0)


def test_the_other_measures_of_known_pairs() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 5.0])
    assert dissimilarity(a, b, "cosine") == 1.0
    assert dissimilarity(a, b, "euclidean") == pytest.approx(math.sqrt(2.0))
    assert dissimilarity(a, b, "manhattan") == 2.0


@every_measure
@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000))
def test_a_measure_is_finite_and_not_negative_and_symmetric(name: str, seed: int, other: int) -> None:
    a, b = vector(seed), vector(other)
    value = dissimilarity(a, b, name)
    assert value is not None
    assert 0.0 <= value <= (180.0 if name == "angle" else 2.0)
    assert dissimilarity(b, a, name) == pytest.approx(value, abs=1e-4)


@every_measure
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6))
def test_positive_rescaling_changes_nothing(name: str, seed: int, scale: float) -> None:
    a, b = vector(seed), vector(seed + 1)
    # float32 leaves an angle of a few ten-thousandths of a degree open.
    assert dissimilarity(scale * a, b, name) == pytest.approx(dissimilarity(a, b, name), abs=1e-2, rel=1e-4)
    assert dissimilarity(a, scale * b, name) == pytest.approx(dissimilarity(a, b, name), abs=1e-2, rel=1e-4)


@every_measure
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_parallel_vectors_are_nearest_and_opposite_ones_farthest(name: str, seed: int, scale: float) -> None:
    """Rounding lifts the cosine of parallel vectors above 1: the arc cosine must not become NaN."""
    a = vector(seed)
    near, far = dissimilarity(a, scale * a, name), dissimilarity(a, -scale * a, name)
    # An angle of 0.06 degrees has a cosine that float32 cannot tell from 1; distances go with its square root.
    assert near == pytest.approx(0.0, abs=0.1 if name == "angle" else 2e-3)
    assert far == pytest.approx(180.0 if name == "angle" else 2.0, abs=0.1 if name == "angle" else 2e-3)


@every_measure
def test_zero_and_unusable_vectors_have_no_measure(name: str) -> None:
    a = vector(1)
    for bad in (torch.zeros(SIZE), torch.full((SIZE,), math.nan), torch.full((SIZE,), math.inf)):
        assert dissimilarity(a, bad, name) is None
        assert dissimilarity(bad, a, name) is None
    assert dissimilarity(torch.zeros(SIZE), torch.zeros(SIZE), name) is None


def test_vectors_whose_squares_overflow_have_no_angle() -> None:
    assert dissimilarity(1e30 * vector(1), 1e30 * vector(2)) is None


@pytest.mark.parametrize("name", ["cosine", "euclidean"])
@given(seeds=st.lists(st.integers(0, 10_000), min_size=3, max_size=3, unique=True))
def test_cosine_and_distance_order_pairs_as_the_angle_does(name: str, seeds: list[int]) -> None:
    a, b, c = map(vector, seeds)
    angles, others = [[dissimilarity(a, x, m) for x in (b, c)] for m in ("angle", name)]
    assert (angles[0] < angles[1]) == (others[0] < others[1])
