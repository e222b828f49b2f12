"""FedQS's half of a client with the real trainer: momentum, tiny shards, and what a client is judged on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from clients.trainer import LocalTrainer
from fedmtl.client_types import type_name
from fedmtl.data.federated import Examples, FederatedData
from fedmtl.data.holdout import hold_out
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings, Update
from fedmtl.tasks import Task

TERMS = {
    "frequency": 0.005,
    "frequency_mean": 0.01,
    "similarity_mean": 60.0,
    "a": 0.0,
    "m0": 0.5,
    "k": 0.0,
    "momentum_cap": 0.0,
    "adapt_momentum": 1.0,
    "frequency_cap": 9.0,
    "rate_min": 0.001,
    "rate_max": 0.2,
    "spread": 30.0,
    "small_class": 1.0,
    "similarity": 0.0,
    "since_last": 0.0,
}


def train(
    data: FederatedData,
    task: Task,
    similarity: float,
    client: int = 0,
    base: torch.Tensor | None = None,
    judged_on: int = 0,
) -> Update:
    model = build_model("linear", {}, data.input_shape, [task], 1)
    layout = ParameterLayout.of(model)
    vector = torch.zeros(layout.size) if base is None else base
    settings = TrainSettings(epochs=3, batch_size=10, learning_rate=0.01, clip=0.0)
    order = TrainOrder(
        client,
        1,
        GlobalModel(2, vector, layout),
        None,
        settings,
        None,
        Balancing(),
        "fedqs",
        TERMS,
        {},
        7,
        {"judged_on": judged_on},
    )
    return LocalTrainer(model, data).train(order, {"similarity": similarity, "learning_rate": 0.01})


def make_data(task: Task, features: torch.Tensor, targets: torch.Tensor, sizes: list[int]) -> FederatedData:
    cuts = np.cumsum([0, *sizes])
    train = Examples(features, (targets,))
    shards, validation = hold_out([np.arange(a, b) for a, b in itertools.pairwise(cuts)], 0.2, 3)
    return FederatedData([task], train, train, shards, validation, np.ones((len(sizes), 1), dtype=bool))


def test_heavy_ball_over_three_steps_of_a_constant_gradient() -> None:
    """One example far above the prediction: the absolute error's gradient is -x, whatever the weights."""
    task = Task("height", "regression", loss="absolute_error")
    x = torch.tensor([[1.0, -2.0, 0.5]])
    data = make_data(task, x, torch.tensor([1000.0]), [1])
    for _ in range(2):  # the second job starts as empty as the first
        update = train(data, task, similarity=50.0)
        assert (type_name(update.terms.get("client_type")), update.momentum, update.steps) == ("SUC", 0.5, 3)
        gradient = torch.cat([-x[0], torch.tensor([-1.0])])
        torch.testing.assert_close(update.delta, -0.01 * gradient * (1 + 1.5 + 1.75))


def test_a_client_with_fewer_examples_than_a_batch_changes_the_model() -> None:
    task = Task("kind", "classification", 2)
    data = make_data(task, torch.randn(3, 4), torch.tensor([0, 1, 1]), [3])
    update = train(data, task, similarity=50.0)
    assert update.examples < 10
    assert update.delta.abs().max() > 0


@pytest.mark.parametrize(("right", "expected"), [("both classes", "SBC-1"), ("one class", "SBC-2")])
def test_a_slow_and_biased_client_is_judged_on_examples_it_never_trains_on(right: str, expected: str) -> None:
    """The held-out features alone carry the label's sign; or the model takes every one for the first class."""
    task = Task("kind", "classification", 2)
    targets = torch.arange(40) % 2
    data = make_data(task, torch.zeros(40, 1), targets, [40])
    held, trained = data.validation[0], data.shards[0]
    assert not set(held.tolist()) & set(trained.tolist())
    assert {0, 1} == set(targets[held].tolist())
    sign = torch.where(targets == 0, -1.0, 1.0) if right == "both classes" else -torch.ones(40)
    data.train.features[held, 0] = sign[held]
    reads_the_sign = torch.tensor([-1.0, 1.0, 0.0, 0.0])  # weights of the two outputs, then their biases
    update = train(data, task, similarity=70.0, base=reads_the_sign)
    assert type_name(update.terms.get("client_type")) == expected


def test_a_client_can_be_judged_on_the_first_examples_that_it_trains_on() -> None:
    """Of each class the first 3 that are trained on carry the label's sign, and no other example does."""
    task = Task("kind", "classification", 2)
    targets = torch.arange(40) % 2
    data = make_data(task, -torch.ones(40, 1), targets, [40])
    trained = data.shards[0]
    reads_the_sign = torch.tensor([-1.0, 1.0, 0.0, 0.0])

    def judged(on: int) -> str:
        update = train(data, task, similarity=70.0, base=reads_the_sign, judged_on=on)
        return type_name(update.terms.get("client_type"))

    assert [judged(on) for on in (0, 3)] == ["SBC-2", "SBC-2"]
    ones = trained[targets[trained] == 1]
    data.train.features[ones[:3], 0] = 1.0
    assert [judged(on) for on in (0, 3)] == ["SBC-2", "SBC-1"]
    assert judged(9) == "SBC-2"  # a third of the second class is right
