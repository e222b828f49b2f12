"""The models by name, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fedmtl.components import create
from fedmtl.errors import ConfigError
from fedmtl.models.lenet import lenet
from fedmtl.models.linear import linear
from fedmtl.models.lstm import lstm
from fedmtl.models.mlp import mlp
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.norms import bearing_single_values
from fedmtl.models.resnet18 import resnet18
from fedmtl.randomness import default_generators, derive_seed
from fedmtl.tasks import Task

MODELS: dict[str, Callable[..., MultiTaskModel]] = {
    "linear": linear,
    "mlp": mlp,
    "lenet": lenet,
    "resnet18": resnet18,
    "lstm": lstm,
}


def build_model(
    name: str, options: Mapping[str, Any], input_shape: Sequence[int], tasks: Sequence[Task], seed: int
) -> MultiTaskModel:
    """A freshly initialised model on the CPU.

    Parameters
    ----------
    name, options
        The model's name in `MODELS`, and its options.
    input_shape
        Shape of one example's features.
    tasks
        The tasks, in order; a head is made for each.
    seed
        Of the first parameters: ``model.seed``, or the run's. The initial values depend on it alone, and the default
        generators are left as they were.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, the model cannot take examples of this shape, or two tasks have one
        name.
    """
    _check_names(tasks)
    with default_generators(derive_seed(seed, "model")), torch.device("cpu"):
        return bearing_single_values(create(MODELS, name, options, "model", tuple(input_shape), tasks))


def _check_names(tasks: Sequence[Task]) -> None:
    names = [task.name for task in tasks]
    if not names:
        raise ConfigError("a model needs at least one task")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"task {name!r} occurs twice; every task needs a name of its own")
