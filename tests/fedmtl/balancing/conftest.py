"""Real models on the real handwritten digits, with the four tasks of different kinds and scales."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fedmtl.balancing import StepGradients, TaskNetwork, build_balancer
from fedmtl.data.digits import load_images
from fedmtl.models import MODELS, MultiTaskModel, build_model
from fedmtl.protocol import Balancing
from fedmtl.tasks import Task

TASKS = (
    Task("digit", "classification", 10),
    Task("parity", "binary", loss_factor=0.05),
    Task("ink", "regression", loss_factor=30.0),
    Task("asymmetry", "regression", loss="absolute_error", loss_factor=5.0),
)


images_once = functools.cache(load_images)
"""Reading them takes longer than most tests here."""


class DigitsStep:
    """A model, a batch of digits, and the gradients that autograd finds for each task by itself."""

    def __init__(self, name: str, options: dict[str, Any], shape: tuple[int, ...], tasks: Sequence[int], batch: int):
        self.name = name
        drawn, written = images_once()
        pixels, labels = torch.tensor(drawn[:batch].reshape(batch, 64)), torch.tensor(written[:batch])
        images = pixels.view(-1, 8, 8)
        ink = pixels[:, :32].sum(1)
        tilt = images[:, :, :4].sum((1, 2)) - images[:, :, 4:].sum((1, 2))
        columns = (labels, (labels % 2).float(), ink / 10 - 1, tilt / 5)
        chosen = [TASKS[task] for task in tasks]
        tokens = (pixels * 16).long()
        self.inputs = (tokens if name == "lstm" else pixels).view(batch, *shape)
        self.targets = [columns[task].clone() for task in tasks]
        self.model: MultiTaskModel = build_model(name, options, shape, chosen, seed=3)
        self.network = TaskNetwork(self.model, chosen)

    def losses(self, rows: slice = slice(None)) -> list[Tensor]:
        representation = self.model.backbone(self.inputs[rows])
        return self.network.losses(representation, [target[rows] for target in self.targets])

    def shared_gradients(self, rows: slice = slice(None)) -> Tensor:
        """g_i of each task on these rows' own mean loss, flat, shape [tasks, P]."""
        gradients = []
        for loss in self.losses(rows):
            parts = torch.autograd.grad(loss, self.network.shared, retain_graph=True) if self.network.shared else ()
            gradients.append(flat(parts))
        return torch.stack(gradients)

    def head_gradients(self) -> list[Tensor]:
        """Each head's gradient of its own task's loss, flat."""
        pairs = zip(self.losses(), self.network.heads, strict=True)
        return [flat(torch.autograd.grad(loss, head, retain_graph=True)) for loss, head in pairs]

    def representation_gradients(self, rows: slice = slice(None)) -> Tensor:
        """Gradients with respect to the representation of the whole batch, of these rows' own mean loss, flat."""
        z = self.model.backbone(self.inputs).detach().requires_grad_()
        losses = self.network.losses(z[rows], [target[rows] for target in self.targets])
        return torch.stack([flat(torch.autograd.grad(loss, [z], retain_graph=True)) for loss in losses])

    def run(self, name: str, weights: Sequence[float] | None = None, **options: Any) -> StepGradients:
        return build_balancer(Balancing(name, options)).gradients(self.network, self.inputs, self.targets, weights)


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0), *(part.detach().reshape(-1) for part in parts)])


SETTINGS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "linear": ("linear", {}, (64,)),
    "mlp": ("mlp", {}, (64,)),
    "lenet": ("lenet", {"channels": (4, 6), "hidden": (24,)}, (1, 8, 8)),
    "resnet18": ("resnet18", {"width": 4, "groups": 2}, (1, 8, 8)),
    "lstm": ("lstm", {"hidden": 12}, (64,)),
}

MakeStep = Callable[..., DigitsStep]


@pytest.fixture
def make_step() -> MakeStep:
    """Makes a step of a model (by its key in SETTINGS, or with its defaults on rows) on a batch of digits."""

    def make(model: str = "mlp", tasks: Sequence[int] = (0, 1, 2, 3), batch: int = 50) -> DigitsStep:
        name, options, shape = SETTINGS.get(model, (model, {}, (64,)))
        return DigitsStep(name, options, shape, tasks, batch)

    return make


@pytest.fixture(params=MODELS)
def step(request: pytest.FixtureRequest, make_step: MakeStep) -> DigitsStep:
    """A step of every model, on a batch that no number of chunks divides evenly."""
    return make_step(request.param, batch=22)
