"""Batch norm where a machine of its own never gets: batches of one, and variances that a server has made negative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedmtl.models import build_model
from fedmtl.models.norms import BatchNorm1d, BatchNorm2d, measure_statistics, norms_in
from fedmtl.tasks import Task

TASKS = (Task("kind", "classification", 3),)
KINDS = pytest.mark.parametrize(
    ("ours", "theirs", "shape"), [(BatchNorm1d, nn.BatchNorm1d, (4,)), (BatchNorm2d, nn.BatchNorm2d, (4, 3, 3))]
)


@KINDS
def test_batches_are_normalised_as_ever(ours: type, theirs: type, shape: tuple[int, ...]) -> None:
    mine, usual = ours(4), theirs(4)
    for _ in range(3):
        batch = torch.randn(5, *shape)
        assert torch.equal(mine(batch), usual(batch))
    assert torch.equal(mine.eval()(batch), usual.eval()(batch))
    assert torch.equal(mine.running_var, usual.running_var)


@KINDS
def test_a_single_value_is_normalised_by_the_statistics_and_leaves_them(
    ours: type, theirs: type, shape: tuple[int, ...]
) -> None:
    norm = ours(4)
    norm(3.0 * torch.randn(50, *shape) + 1.0)
    before = norm.running_mean.clone(), norm.running_var.clone()
    one = torch.randn(1, 4, *(1 for _ in shape[1:]))
    in_training = norm(one)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])
    assert torch.equal(in_training, norm.eval()(one))


def test_a_variance_below_zero_counts_as_zero() -> None:
    norm = BatchNorm1d(2).eval()
    norm.running_var.copy_(torch.tensor([-0.3, 1.0]))
    found = norm(torch.ones(1, 2))
    assert torch.isfinite(found).all()
    assert found[0, 0].item() == pytest.approx(norm.eps**-0.5)


def test_measured_statistics_take_the_place_of_those_that_were_there() -> None:
    norm = BatchNorm1d(3)
    norm.running_mean.fill_(99.0)
    examples = torch.randn(20, 3)
    measure_statistics(nn.Sequential(norm), examples)
    torch.testing.assert_close(norm.running_mean, examples.mean(0))
    torch.testing.assert_close(norm.running_var, examples.var(0))
    assert norm.momentum == 0.1


@pytest.mark.parametrize(
    ("name", "options", "shape", "norms"),
    [
        ("mlp", {"norm": "batch"}, (5,), 2),
        ("mlp", {"out_norm": "batch"}, (5,), 1),
        ("lenet", {"norm": "batch", "out_norm": "batch"}, (1, 8, 8), 4),
        ("resnet18", {"norm": "batch", "width": 3}, (1, 8, 8), 20),
        ("resnet18", {"out_norm": "batch", "width": 4, "groups": 2}, (1, 8, 8), 1),
        ("mlp", {}, (5,), 0),
    ],
)
def test_a_model_has_batch_norm_where_it_is_asked_for(name: str, options: dict, shape: tuple, norms: int) -> None:
    model = build_model(name, options, shape, TASKS, 0)
    assert len(norms_in(model)) == norms
    assert model(torch.randn(1, *shape))[0].shape == (1, 3)
