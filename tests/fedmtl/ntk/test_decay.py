"""What kernels predict of a descent, and the descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedmtl.data.federated import Examples
from fedmtl.models import build_model
from fedmtl.ntk import Kernels
from fedmtl.ntk.decay import (
    curvature,
    directions,
    measured_course,
    predicted_course,
    single_task,
    task_decay,
)
from fedmtl.tasks import Task

Made = Callable[..., tuple[Any, Any]]
Tasks = tuple[Task, ...]


def both(model: Any, tasks: Tasks, examples: Examples, rate: float | None, steps: int) -> tuple[Any, Any, float]:
    """Predicted and measured course of all tasks together, and the rate (half the stable one if None)."""
    kernels = Kernels(model, tasks, examples, parameters="all")
    product = kernels.product(kernels.outputs())
    eta = rate or 0.5 / curvature(product, tasks, len(examples))
    predicted = predicted_course(product, kernels.tangents.outputs, tasks, examples.targets, eta, steps)
    return predicted, measured_course(model, tasks, examples, eta, steps), eta


def test_for_a_linear_model_the_prediction_is_exact_for_every_loss(made: Made, tasks: Tasks) -> None:
    model, examples = made("linear", 20)
    predicted, measured, _ = both(model, tasks, examples, None, 100)
    # The same float64 sums in another order, 100 times.
    assert torch.allclose(predicted.outputs, measured.outputs, rtol=1e-9, atol=1e-10)
    assert torch.allclose(predicted.losses, measured.losses, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(measured.losses[0], measured.losses[-1], rtol=0.1)


def test_along_eigenvectors_a_squared_error_decays_as_powers_and_nearly_as_exponentials(
    made: Made, tasks: Tasks
) -> None:
    model, examples = made("linear", 20)
    task, target = tasks[2], examples.targets[2]
    found = task_decay(model, task, examples.features, target, 60)
    assert found.directions is not None
    assert found.components is not None
    steps = torch.arange(61, dtype=torch.float64)
    assert torch.allclose(found.directions.descent(steps), found.components, rtol=1e-9, atol=1e-10)
    # (1 - x)^t and exp(-x t) differ by less than x / (2 (1 - x)) / e of the start, and x <= 0.05.
    start = found.directions.start.abs() + 1e-10
    assert ((found.directions.flow(steps) - found.components).abs() / start).max() < 0.05 / 2 / 0.95 / 2.718 + 1e-9


@pytest.mark.parametrize("width", [64, 4096])
def test_the_wider_a_network_the_better_the_prediction(width: int) -> None:
    draw = torch.Generator().manual_seed(0)
    tasks = (Task("class", "classification", outputs=3), Task("value", "regression"))
    features = torch.randn(16, 5, generator=draw)
    examples = Examples(features, (torch.randint(0, 3, (16,), generator=draw), features.sum(1).sin()))
    model = build_model("mlp", {"hidden": (width,)}, (5,), tasks, 0)
    predicted, measured, _ = both(model, tasks, examples, None, 40)
    moved = (measured.outputs[-1] - measured.outputs[0]).norm()
    error = ((predicted.outputs[-1] - measured.outputs[-1]).norm() / moved).item()
    # The kernel moves less the wider the network is; measured were 0.03 and 0.00001, and twice and 100 times that is
    # left for other processors' sums.
    assert error < {64: 0.06, 4096: 1e-3}[width]


def test_descent_on_the_shared_parameters_leaves_the_heads(made: Made, tasks: Tasks) -> None:
    model, examples = made("linear", 10)
    measured = measured_course(model, tasks, examples, 0.1, 3, parameters="all")
    assert (measured.losses[-1].sum(1) < measured.losses[0].sum(1)).any()
    kernels = Kernels(made("mlp", 10)[0], tasks, examples, parameters="shared")
    model = made("mlp", 10)[0]
    small = 1e-4
    shared = measured_course(model, tasks, examples, small, 1, parameters="shared")
    predicted = predicted_course(
        kernels.product(kernels.outputs()), kernels.tangents.outputs, tasks, examples.targets, small, 1
    )
    step = predicted.outputs[1] - predicted.outputs[0]
    # One step of size 1e-4 leaves a second-order rest of that order.
    assert torch.allclose(shared.outputs[1] - shared.outputs[0], step, rtol=1e-2, atol=1e-3 * float(step.abs().max()))


def test_a_step_below_twice_the_inverse_curvature_descends_and_one_far_above_climbs(made: Made, tasks: Tasks) -> None:
    model, examples = made("linear", 20)
    task, target = tasks[2], examples.targets[2]
    bound = task_decay(model, task, examples.features, target, 1).curvature
    calm, wild = (
        task_decay(model, task, examples.features, target, 50, rate=factor / bound).measured.mean(1)
        for factor in (1.9, 2.2)
    )
    assert (calm.diff() < 1e-12).all()
    assert wild[-1] > wild[0]


def test_without_the_matrix_the_prediction_is_the_same(made: Made, tasks: Tasks) -> None:
    model, examples = made("tanh", 10)
    dense, free = (
        task_decay(model, tasks[0], examples.features, examples.targets[0], 5, memory=memory)
        for memory in (1 << 30, 1000)
    )
    assert free.rate == pytest.approx(dense.rate, rel=1e-8)
    assert torch.allclose(free.predicted, dense.predicted, rtol=1e-8)


def test_a_task_alone_has_its_own_head_and_the_model_keeps_its_heads(made: Made, tasks: Tasks) -> None:
    model, examples = made("mlp")
    alone = single_task(model, tasks[1])
    assert list(alone.heads) == ["round"]
    assert list(model.heads) == [task.name for task in tasks]
    assert torch.equal(alone(examples.features)[0], model(examples.features)[1])


def test_only_a_squared_error_has_directions_of_decay(made: Made, tasks: Tasks) -> None:
    model, examples = made("mlp")
    with pytest.raises(ValueError, match="only a squared error decays linearly"):
        directions(Kernels(model, tasks, examples), 1, examples.targets[1], 0.1)
