"""An experiment small enough to be trained within milliseconds, and everything to run it on a grid."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from clients.client_app import app
from fedmtl.data.build import build_data
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, TrainSettings
from fedmtl.run_config import experiment_config
from strategies.core.strategy import Strategy

EXPERIMENT = """
seed = 3
[data]
clients = 3
partition = "iid"
[model]
name = "mlp"
hidden = [4]
[balancing]
name = "equal"
"""


@pytest.fixture(scope="session")
def start() -> GlobalModel:
    """Version 0 of the experiment's model."""
    config = experiment_config({"experiment": EXPERIMENT})
    data = build_data(config)
    model = build_model("mlp", config.model.options, data.input_shape, data.tasks, config.seed)
    layout = ParameterLayout.of(model)
    return GlobalModel(0, layout.pack(model), layout)


@pytest.fixture
def grid(flower_grid: ModuleType) -> Any:
    """Three nodes, numbers 100 to 102, that run the real client app as clients 0 to 2."""
    return flower_grid.InProcessGrid(app, range(3), {"experiment": EXPERIMENT, "set": ""})


@pytest.fixture
def initialised(start: GlobalModel) -> Any:
    """Gives a strategy version 0 and quick settings."""

    def initialise(strategy: Strategy) -> Strategy:
        strategy.initialise(start, TrainSettings(epochs=1, learning_rate=0.05), seed=3)
        return strategy

    return initialise
