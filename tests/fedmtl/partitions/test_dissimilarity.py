"""How much clients' gradients differ, against gradients by autograd and figures by hand."""

import numpy as np
import pytest
import torch

from fedmtl.data import Examples, FederatedData, Shards
from fedmtl.models import MultiTaskModel, build_model
from fedmtl.partitions.dissimilarity import ALL_TASKS, GradientSpread, gradient_dissimilarity
from fedmtl.partitions.statistics import Undefined
from fedmtl.tasks import Task

TASKS = (Task("height", "regression"), Task("kind", "classification", outputs=3))
PARTS = ([0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12, 13, 14])


@pytest.fixture
def data() -> FederatedData:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(15, 4, generator=rng)
    part = Examples(features, (features.sum(1), torch.arange(15) % 3))
    owners = np.array([[True, True], [True, False], [True, True]])
    shards = Shards([np.array(part) for part in PARTS])
    return FederatedData(TASKS, part, part, shards, Shards([np.empty(0, np.int64)] * 3), owners)


@pytest.fixture
def model() -> MultiTaskModel:
    return build_model("mlp", {"hidden": [5]}, (4,), TASKS, seed=0)


def by_autograd(model: MultiTaskModel, data: FederatedData, client: int, tasks: list[int]) -> torch.Tensor:
    """The gradient of a client's summed mean losses with respect to all parameters, flat."""
    parameters = list(model.parameters())
    mine = data.train.take(data.shards[client])
    outputs = model(mine.features)
    loss = sum(TASKS[task].mean_loss(outputs[task], mine.targets[task]) for task in tasks)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([gradient.flatten() for gradient in flat]).double()


@pytest.mark.parametrize("batch_size", [2, 50])
def test_b_and_sigma_are_those_of_the_gradients_by_autograd(model, data, batch_size):
    found = {one.name: one for one in gradient_dissimilarity(model, data, batch_size=batch_size, seed=0)}
    wanted = {"height": [[0], [0], [0]], "kind": [[1], [], [1]], ALL_TASKS: [[0, 1], [0], [0, 1]]}
    assert list(found) == list(wanted)
    for name, tasks in wanted.items():
        owners = [client for client in range(3) if tasks[client]]
        g = torch.stack([by_autograd(model, data, client, tasks[client]) for client in owners])
        p = torch.tensor([len(PARTS[client]) for client in owners], dtype=torch.float64)
        p /= p.sum()
        mean = (p[:, None] * g).sum(0).norm()
        assert found[name].clients == len(owners)
        assert found[name].norm == pytest.approx(mean.item(), rel=1e-5)  # gradients are float32
        assert found[name].b == pytest.approx(((p * g.square().sum(1)).sum().sqrt() / mean).item(), rel=1e-5)
        assert found[name].sigma == pytest.approx((g - g.mean(0)).square().sum(1).mean().sqrt().item(), rel=1e-5)


def test_equal_gradients_have_b_1_and_sigma_0_whatever_their_size():
    spread = GradientSpread("digit", 3)
    for examples in (1, 50, 7):
        spread.add(torch.tensor([1e4, -2e4, 0.1]), examples)
    found = spread.dissimilarity()
    assert found.b == pytest.approx(1, abs=1e-12)
    assert found.sigma == 0


def test_b_counts_examples_and_sigma_clients():
    spread = GradientSpread("digit", 1)
    spread.add(torch.tensor([1.0]), examples=3)
    spread.add(torch.tensor([-1.0]), examples=1)
    found = spread.dissimilarity()
    # The mean over examples is 3/4 - 1/4, that over clients 0.
    assert found.norm == pytest.approx(0.5)
    assert found.b == pytest.approx(2)
    assert found.sigma == pytest.approx(1)


def test_where_there_is_nothing_to_compare_with_there_is_no_number():
    alone, opposed = GradientSpread("digit", 1), GradientSpread("digit", 1)
    alone.add(torch.tensor([1.0]), examples=3)
    for sign in (1.0, -1.0):
        opposed.add(torch.tensor([sign]), examples=3)
    assert isinstance(alone.dissimilarity().b, Undefined)
    assert isinstance(alone.dissimilarity().sigma, Undefined)
    assert isinstance(opposed.dissimilarity().b, Undefined)
    assert opposed.dissimilarity().sigma == 1
    opposed.add(torch.tensor([float("nan")]), examples=1)
    assert opposed.dissimilarity().norm == opposed.dissimilarity().sigma == Undefined("a gradient is not finite")
