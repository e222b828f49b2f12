"""Control variates with the real trainer: the correction, the client's own variate, what goes up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clients.policies import client_half
from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings
from fedmtl.tasks import Task

TASKS = (Task("kind", "classification", 3), Task("size", "regression"))
HALF = client_half("control-variates")


@pytest.fixture(scope="module")
def data() -> FederatedData:
    generator = torch.Generator().manual_seed(1)
    examples = Examples(
        torch.randn(20, 5, generator=generator),
        (torch.randint(0, 3, (20,), generator=generator), torch.randn(20, generator=generator)),
    )
    shards = Shards([np.arange(12), np.arange(12, 20)])
    nothing = Shards([np.empty(0, dtype=np.int64)] * 2)
    return FederatedData(TASKS, examples, examples, shards, nothing, np.array([[True, True], [False, True]]))


@pytest.fixture
def trainer(data: FederatedData) -> LocalTrainer:
    return LocalTrainer(build_model("mlp", {"hidden": (6,)}, data.input_shape, TASKS, 0), data)


def order(trainer: LocalTrainer, client: int = 0, policy: str = "control-variates", **vectors) -> TrainOrder:
    generator = torch.Generator().manual_seed(2)
    start = 0.3 * torch.randn(trainer.layout.size, generator=generator)
    settings = TrainSettings(epochs=2, batch_size=4, learning_rate=0.05, clip=0.0)
    base = GlobalModel(0, start, trainer.layout)
    return TrainOrder(client, 0, base, None, settings, None, Balancing(), policy, {}, vectors, seed=3)


def random_vector(layout: ParameterLayout, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))


def test_without_variates_training_is_plain_and_the_change_is_the_mean_gradient(trainer: LocalTrainer) -> None:
    plain = trainer.train(order(trainer, policy="plain"))
    update = trainer.train(order(trainer), {})
    assert torch.equal(update.delta, plain.delta)
    assert plain.vectors == {}
    assert update.steps == 6
    torch.testing.assert_close(update.vectors["variate_change"], update.delta / (-6 * 0.05))


def test_a_step_is_corrected_by_the_difference_of_the_variates(trainer: LocalTrainer) -> None:
    """One step on a single batch: the correction adds to the plain step."""
    c, c_i = random_vector(trainer.layout, 5), random_vector(trainer.layout, 6)

    def one_step(policy: str, observed: dict, **vectors) -> torch.Tensor:
        what = order(trainer, policy=policy, **vectors)
        return trainer.train(
            TrainOrder(0, 0, what.base, 1, what.settings, None, what.balancing, policy, {}, vectors, seed=3),
            observed,
        ).delta

    plain = one_step("plain", {})
    torch.testing.assert_close(one_step("control-variates", {"variate": c_i}, variate=c), plain - 0.05 * (c - c_i))
    torch.testing.assert_close(one_step("control-variates", {"variate": c_i}), plain + 0.05 * c_i)
    torch.testing.assert_close(one_step("control-variates", {}, variate=c), plain - 0.05 * c)


def test_the_variate_becomes_the_papers(trainer: LocalTrainer) -> None:
    c, c_i = random_vector(trainer.layout, 5), random_vector(trainer.layout, 6)
    state = {"variate": c_i}
    what = order(trainer, variate=c)
    update = trainer.train(what, HALF.observe(what, state))
    HALF.conclude(what, update, state)
    expected = c_i - c - update.delta / (update.steps * 0.05)
    torch.testing.assert_close(state["variate"], expected)


def test_heads_that_the_client_does_not_own_keep_a_variate_of_zero(trainer: LocalTrainer) -> None:
    c = random_vector(trainer.layout, 5)
    change = trainer.train(order(trainer, client=1, variate=c), {}).vectors["variate_change"]
    foreign, own = trainer.layout.heads
    assert change[foreign].count_nonzero() == 0
    assert change[own].count_nonzero() > 0


def test_a_failure_leaves_the_variate_alone(trainer: LocalTrainer) -> None:
    c_i = random_vector(trainer.layout, 6)
    state = {"variate": c_i}
    what = order(trainer)
    update = trainer.train(what, {"variate": torch.full_like(c_i, math.nan)})
    assert update.failure is not None
    assert update.vectors == {}
    HALF.conclude(what, update, state)
    assert torch.equal(state["variate"], c_i)


def test_the_traffic_is_what_goes_up(trainer: LocalTrainer) -> None:
    what = order(trainer)
    vectors = trainer.train(what, {}).vectors.values()
    assert HALF.extra_bytes_up(what) == sum(4 * vector.numel() for vector in vectors)
