"""Small models and examples, and their Jacobians row by row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedmtl.data.federated import Examples
from fedmtl.models import MultiTaskModel, build_model
from fedmtl.ntk import Rows, Tangents
from fedmtl.tasks import Task

TASKS = (
    Task("colour", "classification", outputs=3, loss_factor=2.0),
    Task("round", "binary"),
    Task("size", "regression", loss_factor=0.5),
    Task("weight", "regression", loss="absolute_error"),
)


def _targets(n: int, draw: torch.Generator) -> tuple[Tensor, ...]:
    return (
        torch.randint(0, 3, (n,), generator=draw),
        torch.randint(0, 2, (n,), generator=draw).float(),
        torch.randn(n, generator=draw),
        torch.randn(n, generator=draw),
    )


def _made(kind: str, n: int = 7) -> tuple[MultiTaskModel, Examples]:
    """A model of that kind and n examples that fit."""
    draw = torch.Generator().manual_seed(1)
    if kind == "mlp":
        features = torch.randn(n, 5, generator=draw)
        model = build_model("mlp", {"hidden": (6, 4)}, (5,), TASKS, 0)
    elif kind == "tanh":  # no layers that could be written out
        features = torch.randn(n, 5, generator=draw)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            model = MultiTaskModel(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)), 4, TASKS)
    elif kind == "lenet":
        features = torch.randn(n, 1, 8, 8, generator=draw)
        model = build_model("lenet", {"channels": (2, 3), "hidden": (4,)}, (1, 8, 8), TASKS, 0)
    elif kind == "lstm":
        features = torch.randint(0, 9, (n, 4), generator=draw)
        model = build_model("lstm", {"vocabulary": 9, "embedding": 2, "hidden": 3, "layers": 1}, (4,), TASKS, 0)
    else:
        features = torch.randn(n, 5, generator=draw)
        model = build_model("linear", {}, (5,), TASKS, 0)
    return model, Examples(features, _targets(n, draw))


def _jacobian(model: MultiTaskModel, inputs: Tensor, rows: Rows, parameters: str) -> Tensor:
    """The rows' gradients by plain autograd, one after another, in float64."""
    twin = Tangents(model, inputs)._model
    chosen = list((twin.backbone if parameters == "shared" else twin).parameters())
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    x = inputs.double() if inputs.is_floating_point() else inputs
    outputs = torch.cat(twin(x), 1)
    gradients = []
    for example, cotangent in zip(rows.example, rows.cotangent, strict=True):
        value = outputs[example] @ cotangent
        found = torch.autograd.grad(value, chosen, retain_graph=True, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(gradients)


@pytest.fixture(params=["mlp", "tanh", "lenet", "lstm"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tasks() -> tuple[Task, ...]:
    """A task for each loss."""
    return TASKS


@pytest.fixture
def made() -> Callable[..., tuple[MultiTaskModel, Examples]]:
    """Makes a model of a kind, and examples."""
    return _made


@pytest.fixture
def jacobian() -> Callable[..., Tensor]:
    """Gradients by plain autograd."""
    return _jacobian
