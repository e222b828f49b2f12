"""M-step FedAsync's clients with the real trainer: where a job starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.policies import client_half
from clients.policies.base import ClientState
from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings, Update
from fedmtl.tasks import Task

TASKS = (Task("kind", "classification", 3), Task("size", "regression"))
HALF = client_half("own-model")


@pytest.fixture(scope="module")
def trainer() -> LocalTrainer:
    generator = torch.Generator().manual_seed(1)
    examples = Examples(
        torch.randn(12, 5, generator=generator),
        (torch.randint(0, 3, (12,), generator=generator), torch.randn(12, generator=generator)),
    )
    nothing = Shards([np.empty(0, dtype=np.int64)])
    data = FederatedData(TASKS, examples, examples, Shards([np.arange(12)]), nothing, np.array([[True, True]]))
    return LocalTrainer(build_model("mlp", {"hidden": (6,)}, data.input_shape, TASKS, 0), data)


def order(trainer: LocalTrainer, job: int, version: int, policy: str = "own-model", start=None) -> TrainOrder:
    vector = 0.3 * torch.randn(trainer.layout.size, generator=torch.Generator().manual_seed(version))
    base = GlobalModel(version, vector if start is None else start, trainer.layout)
    settings = TrainSettings(epochs=1, batch_size=4, learning_rate=0.05)
    return TrainOrder(0, job, base, None, settings, None, Balancing(), policy, {}, {}, seed=job)


def do(trainer: LocalTrainer, given: TrainOrder, state: ClientState) -> Update:
    update = trainer.train(given, HALF.observe(given, state))
    HALF.conclude(given, update, state)
    return update


def test_a_job_on_the_same_version_goes_on_from_where_the_last_one_ended(trainer: LocalTrainer) -> None:
    state: ClientState = {}
    first, second = (do(trainer, order(trainer, job, 0), state) for job in range(2))
    ended = order(trainer, 0, 0).base.vector + first.delta
    plain = trainer.train(order(trainer, 1, 0, "plain", start=ended))
    # A delta against another base: rounded anew.
    torch.testing.assert_close(second.delta, first.delta + plain.delta, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(second.delta, first.delta)


def test_a_newer_version_is_where_the_next_job_starts(trainer: LocalTrainer) -> None:
    state: ClientState = {}
    do(trainer, order(trainer, 0, 0), state)
    second = do(trainer, order(trainer, 1, 1), state)
    assert second.delta.equal(trainer.train(order(trainer, 1, 1, "plain")).delta)


def test_a_client_keeps_its_model_only_until_its_next_order(trainer: LocalTrainer) -> None:
    state: ClientState = {}
    do(trainer, order(trainer, 0, 0), state)
    assert set(state) == {"model", "version"}
    HALF.observe(order(trainer, 1, 0), state)
    assert state == {}


@pytest.mark.parametrize("fault", ["failure", "nan"])
def test_a_model_beyond_all_numbers_is_not_gone_on_from(trainer: LocalTrainer, fault: str) -> None:
    state: ClientState = {}
    given = order(trainer, 0, 0)
    update = trainer.train(given, {})
    if fault == "failure":
        update.failure = "the loss is nan"
    else:
        update.delta[0] = float("nan")
    HALF.conclude(given, update, state)
    assert state == {}
