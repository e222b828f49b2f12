"""The synthetic tasks are what their closed forms say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.config import parse_config
from fedmtl.data.build import build_data
from fedmtl.data.synthetic_tasks import synthetic_tasks, task_family
from fedmtl.errors import ConfigError, DataError

OPTIONS = {"conflict": 0.6, "scale_spread": 50.0, "noise": 0.5}
MANY = 200_000


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of five tasks on twelve features, many enough for means to be within about 1 %."""
    pool = synthetic_tasks(3, 1, tasks=5, features=12, examples=MANY, test_examples=1, **OPTIONS)
    return pool.train.features.double().numpy(), torch.stack(pool.train.targets, 1).double().numpy()


@given(
    tasks=st.integers(1, 40),
    conflict=st.floats(0, 1),
    spread=st.floats(1, 1e6),
    seed=st.integers(0, 9),
)
def test_tasks_are_unit_functions_with_the_cosine_and_the_scales_that_were_asked_for(
    tasks: int, conflict: float, spread: float, seed: int
) -> None:
    family = task_family(seed, tasks, 40, conflict=conflict, scale_spread=spread, noise=0.3)
    cosines = family.targets @ family.targets.T
    assert np.allclose(np.diag(cosines), 1.0, atol=1e-7)  # sqrt of a rounded zero costs half the digits
    if tasks > 1:
        expected = 1 - conflict * tasks / (tasks - 1)
        assert np.allclose(cosines[~np.eye(tasks, dtype=bool)], expected, atol=1e-7)
        assert np.isclose(family.scales[-1] / family.scales[0], spread)
    assert np.isclose(np.log(family.scales).mean(), 0.0, atol=1e-12)


def test_with_full_conflict_the_tasks_add_to_zero() -> None:
    family = task_family(0, 6, 20, conflict=1.0, scale_spread=1.0, noise=0.0)
    inputs = np.random.default_rng(0).standard_normal((50, 20))
    assert np.allclose(family.signals(inputs).sum(1), 0.0, atol=1e-7)


def test_hidden_features_are_independent_with_mean_zero_and_variance_one(drawn: tuple[np.ndarray, ...]) -> None:
    features = task_family(3, 5, 12, **OPTIONS).features(drawn[0])
    # Standard errors are at most sqrt(kurtosis / n) = 0.005: six of them.
    assert np.abs(features.mean(0)).max() < 0.03
    assert np.abs(features.T @ features / MANY - np.eye(12)).max() < 0.03


@pytest.mark.parametrize("kind", ["features", "inputs", "nothing"])
def test_least_squares_reaches_the_closed_form_and_no_less(drawn: tuple[np.ndarray, ...], kind: str) -> None:
    """On the hidden features, on the inputs and on a constant; with 200,000 examples and 13 coefficients a fitted
    error is within 0.01 % of the best by overfitting, and within about 2 % by the draw of the examples."""
    inputs, targets = drawn
    family = task_family(3, 5, 12, **OPTIONS)
    ones = np.ones((MANY, 1))
    design, expected = {
        "features": (np.hstack([family.features(inputs), ones]), family.best_losses),
        "inputs": (np.hstack([inputs, ones]), family.best_linear_losses),
        "nothing": (ones, family.constant_losses),
    }[kind]
    fitted = design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    assert np.allclose(((targets - fitted) ** 2).mean(0), expected, rtol=0.02)


def test_a_wide_hidden_layer_beats_every_linear_function_and_no_model_beats_the_floor() -> None:
    pool = synthetic_tasks(0, 1, tasks=1, features=4, noise=0.3, examples=4000, test_examples=4000)
    family = task_family(0, 1, 4, conflict=0.5, scale_spread=10.0, noise=0.3)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(300):
        loss = (net(pool.train.features)[:, 0] - pool.train.targets[0]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        error = (net(pool.test.features)[:, 0] - pool.test.targets[0]).square().mean().item()
    # The standard error of a mean of 4000 squares of normals is 2.2 %: the floor less four of them, and 40 % more.
    assert 0.91 * family.best_losses[0] < error < 1.4 * family.best_losses[0] < family.best_linear_losses[0]


def test_the_same_seed_gives_the_same_data_and_more_examples_change_no_function() -> None:
    one, two = (synthetic_tasks(5, 1, examples=n, test_examples=10) for n in (20, 30))
    again = synthetic_tasks(5, 1, examples=20, test_examples=10)
    assert torch.equal(one.train.features, again.train.features)
    assert torch.equal(one.test.targets[3], two.test.targets[3])


def test_it_is_a_source_with_options_of_its_own() -> None:
    config = {"source": "synthetic-tasks", "clients": 10, "partition": "iid", "tasks": 12, "conflict": 1.0}
    data = build_data(parse_config({"data": config}))
    assert [task.name for task in data.tasks[:2]] == ["task-01", "task-02"]
    assert len(data.tasks) == 12
    assert data.input_shape == (40,)


def test_more_tasks_than_features_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.features to 40 or more"):
        synthetic_tasks(0, 1, tasks=40, features=39)


def test_a_partition_by_classes_is_refused_as_there_are_none() -> None:
    with pytest.raises((ConfigError, DataError), match="class"):
        build_data(parse_config({"data": {"source": "synthetic-tasks", "clients": 5, "partition": "dirichlet"}}))
