"""The shortest vector in a convex hull, and the methods that go along it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from fedmtl.balancing import balance_gradients, build_balancer
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.least_norm import least_norm_weights
from fedmtl.protocol import Balancing


def rows_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        (((3.0, 4.0), (1.0, 0.0)), (0.0, 1.0)),
        (((1.0, 0.0), (-1.0, 1.0)), (0.6, 0.4)),
        (((2.0, 0.0), (0.0, 1.0)), (0.2, 0.8)),
        (((1.0, 1.0), (1.0, 1.0)), (0.5, 0.5)),
        (((5.0, 1.0),), (1.0,)),
        (((0.0, 0.0), (0.0, 0.0)), (0.5, 0.5)),
    ],
)
def test_golden_weights(rows: tuple[tuple[float, ...], ...], weights: tuple[float, ...]) -> None:
    G = rows_of(*rows)
    torch.testing.assert_close(least_norm_weights(G @ G.T), torch.tensor(weights, dtype=torch.float64))


@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 2**32), st.floats(1e-3, 1e3))
@example(6, 5, 308460, 15.0)  # vectors nearly cancel, and 10,000 moves do not reach the point
@example(5, 3, 267707075, 0.10424145228402343)
@example(7, 5, 1526356765, 24.145771507802067)
def test_every_task_gains_at_least_the_squared_length(tasks: int, size: int, seed: int, spread: float) -> None:
    """The optimality of the least point: d.g_i >= ||d||^2 for all i, up to the solver's tolerance."""
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    G *= spread ** torch.linspace(0, 1, tasks, dtype=torch.float64).unsqueeze(1)
    w = least_norm_weights(G @ G.T)
    assert w.min() >= 0
    assert w.sum().item() == pytest.approx(1.0)
    d = w @ G
    assert (G @ d - d @ d).min() >= -1e-9 * G.square().sum(1).mean()


def random_gram(seed: int, decades: float) -> Tensor:
    """Products of 2 to 40 random gradients with 2 to 200 entries, their norms spread evenly over so many decades."""
    generator = torch.Generator().manual_seed(seed)
    tasks, size = (int(torch.randint(2, high, (), generator=generator)) for high in (41, 201))
    rows = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    norms = 10 ** (decades * (torch.rand(tasks, 1, generator=generator, dtype=torch.float64) - 0.5))
    rows = rows / rows.norm(dim=1, keepdim=True) * norms
    return rows @ rows.T


def lacking(gram: Tensor, w: Tensor) -> float:
    """By how much a task gains less than the squared length, in squared lengths of the shortest gradient."""
    assert (w >= 0).all()
    assert w.sum().item() == pytest.approx(1.0, abs=1e-12)
    gained = gram @ w
    return float((w @ gained - gained).max() / gram.diagonal().min())


def test_mgda_is_exact_for_a_thousand_random_jacobians_with_norms_over_six_decades():
    balancer = build_balancer(Balancing("mgda"))
    assert isinstance(balancer, GramWeighting)
    for seed in range(1000):
        gram = random_gram(seed, decades=6.0)
        w = balancer.weigh(gram, gram.new_ones(len(gram)), range(len(gram)))
        assert lacking(gram, w) <= 1e-6, f"seed {seed}, {len(gram)} tasks"


@pytest.mark.parametrize("seed", range(20))
def test_mgda_is_no_longer_than_any_other_mixture(seed):
    """Eight tasks over three decades, where a hundred steps of Frank and Wolfe ended up to six times too long."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(8, 50, generator=generator, dtype=torch.float64)
    rows *= 10 ** (3 * torch.rand(8, 1, generator=generator, dtype=torch.float64))
    found = balance_gradients(build_balancer(Balancing("mgda")), rows).shared[0]
    by_pairs = [_nearest(rows[i], rows[j]) for i in range(8) for j in range(i)]
    # The projection of the found vector on the way to any gradient is itself: no mixture with it is shorter.
    further = [_nearest(found, row) for row in rows]
    # From a gram of float64, brought to a direction.
    assert found.norm() <= min(point.norm() for point in by_pairs) * (1 + 1e-9)
    assert found.norm() <= min(point.norm() for point in further) * (1 + 1e-9)


def _nearest(one: Tensor, other: Tensor) -> Tensor:
    """The shortest point between two vectors, in closed form."""
    share = ((other - one) @ other / (one - other).square().sum()).clamp(0, 1)
    return share * one + (1 - share) * other


@pytest.mark.parametrize("factor", [1e-60, 1e-6, 1e60])
def test_the_scale_of_all_gradients_does_not_matter(factor):
    gram = random_gram(5, decades=3.0)
    torch.testing.assert_close(least_norm_weights(gram * factor), least_norm_weights(gram), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-4])
@pytest.mark.parametrize("kind", ["alike", "opposed", "of low rank"])
def test_gradients_that_hardly_differ_or_nearly_cancel_are_solved_as_far_as_products_have_digits(kind, noise):
    generator = torch.Generator().manual_seed(8)
    rows = torch.randn(12, 30, generator=generator, dtype=torch.float64)
    if kind == "alike":
        rows[1:] = rows[0]
    elif kind == "opposed":
        rows[6:] = -rows[:6]
    else:
        rows = rows[:, :3] @ rows[:3]
    rows += noise * torch.randn(12, 30, generator=generator, dtype=torch.float64)
    gram = rows @ rows.T
    assert lacking(gram, least_norm_weights(gram)) <= 1e-6


def test_a_single_precision_gram_matrix_gives_the_shortest_vector_within_its_precision():
    """Such a matrix may have negative eigenvalues, of about its last digit."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(20, 6, generator=generator) * 10 ** (2 * torch.rand(20, 1, generator=generator))
    w = least_norm_weights((rows @ rows.T).double())
    assert (w >= 0).all()
    # Zero is in the hull of so many vectors of so few entries.
    assert (w @ rows.double()).norm() <= 1e-3 * rows.norm(dim=1).min()


def test_products_that_are_not_finite_give_equal_weights():
    assert least_norm_weights(torch.tensor([[math.inf, 0.0], [0.0, 1.0]], dtype=torch.float64)).tolist() == [0.5, 0.5]
