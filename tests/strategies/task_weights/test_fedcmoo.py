"""FedCMOO's server: weights that follow the Gram matrix of the tasks' mean gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, Update
from strategies.task_weights.fedcmoo import FedCMOOWeights, on_simplex

LAYOUT = ParameterLayout((), slice(0, 3), (slice(3, 4), slice(4, 5)), slice(5, 5))


def make(rank: int = 2, rate: float = 0.1, iterations: int = 1) -> FedCMOOWeights:
    part = FedCMOOWeights(rank=rank, weight_rate=rate, weight_steps=iterations)
    part.prepare(GlobalModel(0, torch.zeros(5), LAYOUT), 0)
    return part


def update(gradients: dict[int, tuple[float, float, float]]) -> Update:
    """An update whose basis is the gradients themselves."""
    vectors = {f"basis {j}": torch.zeros(5) for j in range(2)}
    terms = {}
    for j, (task, gradient) in enumerate(gradients.items()):
        vectors[f"basis {j}"][:3] = torch.tensor(gradient)
        terms |= {f"coefficient {task} {k}": float(j == k) for k in range(2)}
    return Update(0, 0, 0, torch.zeros(5), 10, 2, tuple(gradients), terms=terms, vectors=vectors)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
def test_the_nearest_point_of_the_simplex(values: list[float]) -> None:
    """It lies on the simplex, and every other corner is seen from it at an angle of at least 90 degrees."""
    w = torch.tensor(values, dtype=torch.float64)
    p = on_simplex(w)
    assert p.min() >= 0
    assert p.sum().item() == pytest.approx(1.0)
    corners = torch.eye(len(w), dtype=torch.float64)
    assert ((corners - p) @ (w - p)).max() <= 1e-9


def test_a_step_is_that_of_the_formula_over_owners() -> None:
    part = make(rate=0.3)
    updates = [
        update({0: (1.0, 0.0, 0.0), 1: (0.0, 2.0, 0.0)}),
        update({1: (0.0, 0.0, 4.0)}),
        update({0: (0.0, 0.0, 1.0)}),
    ]
    part.on_aggregated(updates, (0.5, 0.3, 0.2), LAYOUT)
    g = torch.tensor([[0.5 / 0.7, 0.0, 0.2 / 0.7], [0.0, 2 * 0.5 / 0.8, 4 * 0.3 / 0.8]], dtype=torch.float64)
    M = g @ g.T
    scale = g.norm(dim=1).mean() ** 2
    w = torch.full((2,), 0.5, dtype=torch.float64)
    assert part.weights() == pytest.approx(on_simplex(w - 0.3 * M @ w / scale).tolist())


def test_many_steps_find_the_shortest_common_gradient() -> None:
    part = make(rate=0.2, iterations=500)
    part.on_aggregated([update({0: (1.0, 0.0, 0.0), 1: (-1.0, 1.0, 0.0)})], (1.0,), LAYOUT)
    assert part.weights() == pytest.approx((0.6, 0.4), abs=1e-6)


@pytest.mark.parametrize("gradient", [(0.0, 0.0, 0.0), (math.inf, 0.0, 0.0), (math.nan, 0.0, 0.0)])
def test_nothing_is_learned_from_no_gradient_or_one_that_is_no_number(gradient: tuple[float, float, float]) -> None:
    part = make()
    part.on_aggregated([update({0: gradient, 1: gradient})], (1.0,), LAYOUT)
    assert part.weights() == (0.5, 0.5)


def test_a_state_goes_on_to_the_same_bits(toys) -> None:
    one, other = make(), make()
    step = [update({0: (1.0, 2.0, 0.0), 1: (0.0, 1.0, 3.0)})]
    one.on_aggregated(step, (1.0,), LAYOUT)
    other.load_state_dict(toys.through_json(one.state_dict()))
    one.on_aggregated(step, (1.0,), LAYOUT)
    other.on_aggregated(step, (1.0,), LAYOUT)
    assert one.weights() == other.weights()
