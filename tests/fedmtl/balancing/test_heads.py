"""Damped Newton steps of linear heads: what they do to losses of every kind and scale, and to bad input."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.balancing import TaskNetwork
from fedmtl.balancing.heads import HeadMetric, align_heads, reach
from fedmtl.models import build_model
from fedmtl.tasks import Task

TASKS = (
    Task("digit", "classification", 5),
    Task("parity", "binary", loss_factor=0.05),
    Task("ink", "regression", loss_factor=30.0),
    Task("tilt", "regression", loss="absolute_error", loss_factor=5.0),
)
WIDTH, EXAMPLES = 6, 40


def network(tasks: tuple[Task, ...] = TASKS) -> TaskNetwork:
    return TaskNetwork(build_model("linear", {}, (WIDTH,), tasks, seed=1), tasks)


def examples(seed: int = 0, scale: float = 1.0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(EXAMPLES, WIDTH, generator=draw)
    labels = torch.randint(0, 5, (EXAMPLES,), generator=draw)
    ink, tilt = torch.randn(2, EXAMPLES, generator=draw) + z[:, 0]
    return z, [labels, (labels % 2).float(), ink, tilt]


def heads(net: TaskNetwork) -> list[torch.Tensor]:
    """Each head as one matrix [W, b]."""
    values = [value.clone() for value in net.values[len(net.shared) :]]
    return [torch.cat([w, b.unsqueeze(1)], 1) for w, b in zip(values[::2], values[1::2], strict=True)]


def losses(net: TaskNetwork, z: torch.Tensor, targets: list[torch.Tensor]) -> list[float]:
    return net.losses_and_slopes(z, targets)[0].tolist()


@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 3.0]), st.floats(0.1, 10.0), st.integers(1, 6))
def test_no_loss_ever_rises_and_all_fall(seed: int, damping: float, scale: float, steps: int) -> None:
    net, (z, targets) = network(), examples(seed, scale)
    before = losses(net, z, targets)
    align_heads(net, z, targets, HeadMetric(z, damping), steps)
    after = losses(net, z, targets)
    assert all(new <= old for new, old in zip(after, before, strict=True))
    # The absolute error has no bound of its curvature; there a step may be taken back.
    assert all(new < old for new, old in zip(after[:3], before[:3], strict=True))


def test_one_step_without_damping_solves_least_squares() -> None:
    net, (z, targets) = network(), examples()
    align_heads(net, z, targets, HeadMetric(z, 1e-7), 1)
    both = torch.cat([z, torch.ones(EXAMPLES, 1)], 1).double()
    solution = torch.linalg.lstsq(both, targets[2].double().unsqueeze(1)).solution
    torch.testing.assert_close(heads(net)[2].double(), solution.t(), rtol=1e-4, atol=1e-4)


def test_a_step_is_the_formula() -> None:
    net, (z, targets) = network(), examples()
    before = heads(net)
    align_heads(net, z, targets, HeadMetric(z, 0.3), 1)
    both = torch.cat([z, torch.ones(EXAMPLES, 1)], 1).double()
    second = both.T @ both / EXAMPLES
    inverse = torch.linalg.inv(second + 0.3 * second.trace() / (WIDTH + 1) * torch.eye(WIDTH + 1, dtype=torch.double))
    reference = network()
    means, slopes = reference.losses_and_slopes(z, targets)
    bounds = (0.5, 0.25 * 0.05, 2 * 30.0, 5.0**2 / means[3].item())
    for task, bound in enumerate(bounds):
        expected = before[task].double() - slopes[task].double().T @ both @ inverse / bound
        torch.testing.assert_close(heads(net)[task].double(), expected, rtol=1e-4, atol=1e-5)


@given(st.floats(1e-3, 1e3), st.integers(0, 100))
def test_the_scale_of_a_loss_changes_nothing(factor: float, seed: int) -> None:
    scaled = tuple(dataclasses.replace(task, loss_factor=factor * task.loss_factor) for task in TASKS)
    z, targets = examples(seed)
    one, other = network(), network(scaled)
    for net in (one, other):
        align_heads(net, z, targets, HeadMetric(z, 0.3), 3)
    for head, same in zip(heads(one), heads(other), strict=True):
        torch.testing.assert_close(head, same, rtol=1e-3, atol=1e-4)


def test_directions_that_the_examples_do_not_show_stay_as_they_were() -> None:
    net, (z, targets) = network(), examples()
    z[:, 3] = 0.0
    before = heads(net)
    align_heads(net, z, targets, HeadMetric(z, 0.3), 4)
    for head, old in zip(heads(net), before, strict=True):
        assert torch.equal(head[:, 3], old[:, 3])
        assert not torch.equal(head, old)


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_a_task_whose_loss_is_not_finite_stays_and_the_others_do_not_notice(fault: float) -> None:
    sick, well = network(), network()
    z, targets = examples()
    before = heads(sick)
    align_heads(well, z, targets, HeadMetric(z, 0.3), 2)
    targets[2] = targets[2].clone()
    targets[2][5] = fault
    align_heads(sick, z, targets, HeadMetric(z, 0.3), 2)
    found = heads(sick)
    assert torch.equal(found[2], before[2])
    for task in (0, 1, 3):
        assert torch.equal(found[task], heads(well)[task])


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_a_representation_that_is_not_finite_moves_nothing(fault: float) -> None:
    net, (z, targets) = network(), examples()
    before = heads(net)
    z[7, 2] = fault
    metric = HeadMetric(z, 0.3)
    assert not metric.sound
    align_heads(net, z, targets, metric, 3)
    assert all(torch.equal(head, old) for head, old in zip(heads(net), before, strict=True))
    steps = metric.step([torch.ones(2, WIDTH), torch.ones(2)], 1.0)
    assert all(step.count_nonzero() == 0 for step in steps)


def test_a_representation_of_zeros_moves_the_biases_alone() -> None:
    net, (_, targets) = network(), examples()
    before = heads(net)
    z = torch.zeros(EXAMPLES, WIDTH)
    align_heads(net, z, targets, HeadMetric(z, 0.3), 2)
    for head, old in zip(heads(net), before, strict=True):
        assert torch.equal(head[:, :-1], old[:, :-1])
        assert not torch.equal(head[:, -1], old[:, -1])


def test_a_loss_that_is_flat_is_not_stepped_on() -> None:
    assert reach(dataclasses.replace(TASKS[2], loss_factor=0.0), 0.0) == 0.0
    assert reach(TASKS[3], 0.0) == 0.0
    assert reach(TASKS[3], 10.0) == pytest.approx(10.0 / 25.0)
