from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings
from fedmtl.tasks import Task


class World:
    """Three clients with 40, 9 and 3 examples, the last of which lacks one class; small models on them."""

    TASKS = (Task("kind", "classification", 3), Task("size", "regression", loss_factor=2.0))
    SIZES = (40, 9, 3)

    def __init__(self, model: str = "mlp", **options: Any) -> None:
        self.name, self.options = model, options or {"hidden": (8, 6)}
        generator = torch.Generator().manual_seed(1)
        total = sum(self.SIZES)
        features = torch.randn(total, 5, generator=generator)
        labels = torch.randint(0, 3, (total,), generator=generator)
        labels[-3:] = torch.tensor([0, 1, 1])
        train = Examples(features, (labels, features[:, 0] - 0.5 * features[:, 1]))
        shards = Shards(np.split(np.arange(total), np.cumsum(self.SIZES)[:-1]))
        nothing = Shards([np.empty(0, dtype=np.int64)] * len(self.SIZES))
        owners = np.ones((len(self.SIZES), len(self.TASKS)), dtype=bool)
        self.data = FederatedData(self.TASKS, train, train.take(torch.arange(5)), shards, nothing, owners)

    def trainer(self) -> LocalTrainer:
        return LocalTrainer(build_model(self.name, self.options, self.data.input_shape, self.TASKS, 99), self.data)

    def start(self, seed: int = 3) -> GlobalModel:
        model = build_model(self.name, self.options, self.data.input_shape, self.TASKS, seed)
        layout = ParameterLayout.of(model)
        return GlobalModel(7, layout.pack(model), layout)

    def order(
        self, policy: str = "plain", client: int = 0, base: GlobalModel | None = None, **fields: Any
    ) -> TrainOrder:
        settings = dataclasses.replace(TrainSettings(epochs=2, batch_size=10, clip=0.0), **fields.pop("settings", {}))
        values = {"job": 0, "steps": None, "terms": {}, "vectors": {}, "seed": 5} | fields
        return TrainOrder(
            client=client,
            base=base or self.start(),
            settings=settings,
            task_factors=None,
            balancing=Balancing("equal"),
            policy=policy,
            **values,
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    return World
