"""Tasks: losses, their derivatives, metrics, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.tasks import Task

TASKS = [
    Task("kind", "classification", 4),
    Task("flag", "binary", loss_factor=0.05),
    Task("size", "regression", loss_factor=30.0),
    Task("tilt", "regression", loss="absolute_error", loss_factor=5.0),
]


def batch(task: Task, examples: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(examples)
    output = torch.randn(examples, task.outputs, generator=generator) * scale
    if task.kind == "classification":
        return output, torch.randint(0, task.outputs, (examples,), generator=generator)
    if task.kind == "binary":
        return output, torch.randint(0, 2, (examples,), generator=generator).float()
    return output, torch.randn(examples, generator=generator)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize(("examples", "scale"), [(1, 1.0), (7, 1.0), (32, 50.0)])
def test_loss_and_slope_are_what_autograd_says(task: Task, examples: int, scale: float) -> None:
    output, target = batch(task, examples, scale)
    leaf = output.clone().requires_grad_()
    expected = task.mean_loss(leaf, target)
    (gradient,) = torch.autograd.grad(expected, leaf)
    before = output.clone()
    loss, slope = task.loss_and_slope(output, target)
    # The same sums in another order: float32 rounding.
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, gradient, rtol=1e-5, atol=1e-7)
    assert torch.equal(output, before)


def test_scores_count_right_answers_and_errors() -> None:
    kind, flag, size, tilt = TASKS
    assert kind.scores(torch.eye(4), torch.tensor([0, 1, 2, 0])).tolist() == [1, 1, 1, 0]
    assert flag.scores(torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 1.0])).tolist() == [1, 0]
    assert size.scores(torch.tensor([[3.0]]), torch.tensor([1.0])).tolist() == [4]
    assert tilt.score_sum(torch.tensor([[3.0], [0.0]]), torch.tensor([1.0, 1.0])).item() == 3


def test_an_output_that_is_no_number_answers_nothing_right() -> None:
    """The largest of four NaN would be class 0, and NaN > 0 would be a no."""
    kind, flag, size, _ = TASKS
    nothing = torch.tensor([[torch.nan] * 4, [1.0, 0.0, torch.nan, 0.0]])
    assert kind.scores(nothing, torch.tensor([0, 2])).tolist() == [0, 0]
    assert flag.scores(nothing[:, 2:3], torch.tensor([0.0, 1.0])).tolist() == [0, 0]
    assert size.scores(nothing[:1, :1], torch.tensor([0.0])).isnan().all()


def test_the_metric_and_its_direction_follow_from_the_loss() -> None:
    assert [(task.metric, task.higher_is_better) for task in TASKS] == [
        ("accuracy", True),
        ("accuracy", True),
        ("mse", False),
        ("mae", False),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "binary", 1, "squared_error"), "does not fit kind 'binary'"),
        (("a", "classification", 1), "at least 2 classes"),
        (("a", "regression", 3), "has 1 output"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Task(*arguments)  # type: ignore[arg-type]


@given(st.lists(st.text(st.characters(codec="utf-8")), unique=True, min_size=2, max_size=20))
def test_keys_are_safe_and_as_different_as_the_names(names: list[str]) -> None:
    tasks = [Task(name, "binary") for name in names]
    keys = [task.key for task in tasks]
    assert len(set(keys)) == len(keys)
    assert [Task(name, "binary").key for name in names] == keys
    for key in keys:
        assert re.fullmatch(r"[\w -]{1,100}", key)
        # A name that is another task's key gets one of its own.
        assert Task(key, "binary").key not in set(keys) - {key}


def test_a_name_that_was_made_of_another_is_not_taken_for_it() -> None:
    made = Task("education.num", "binary").key
    assert made.startswith("education-num-")
    assert Task(made, "binary").key != made


def test_a_name_that_no_table_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="no valid Unicode"):
        Task("caf\udce9", "binary")
