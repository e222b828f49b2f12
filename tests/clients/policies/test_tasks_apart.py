"""FSMGDA's client: each task's change is that of a client that owns this task alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.policies import client_half
from clients.trainer import LocalTrainer
from fedmtl.balancing.passes import PLAIN
from fedmtl.data.federated import FederatedData
from fedmtl.models import build_model
from fedmtl.protocol import Update
from strategies.aggregators.min_norm import task_change

# The first task's change is what is left of a sum, so that float32 rounds once more; plain jobs round their delta, too.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
SETTINGS = [
    {},
    {"momentum": 0.9},
    {"clip": 0.3},
    {"clip": 0.3, "clip_by": "part"},
    {"proximal": 0.5},
    {"weight_decay": 0.1},
    {"momentum": 0.5, "clip": 1.0, "proximal": 0.1, "weight_decay": 0.01},
]


def alone(world, task: int, client: int, settings: dict) -> Update:
    """The job of a client that owns one task."""
    data = world.data
    owners = np.ones((3, 2), dtype=bool)
    owners[client] = [task == 0, task == 1]
    other = FederatedData(data.tasks, data.train, data.test, data.shards, data.validation, owners)
    model = build_model(world.name, world.options, data.input_shape, data.tasks, 99)
    return LocalTrainer(model, other).train(world.order(client=client, settings=settings))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("client", [0, 1])
def test_each_task_is_trained_as_if_it_were_alone(world, client: int, settings: dict) -> None:
    order = world.order("tasks-apart", client, settings=settings)
    update = world.trainer().train(order)
    layout = order.base.layout
    for task, head in enumerate(layout.heads):
        single = alone(world, task, client, settings)
        found = task_change(update, task)
        torch.testing.assert_close(found[layout.shared], single.delta[layout.shared], **CLOSE)
        torch.testing.assert_close(update.delta[head], single.delta[head], **CLOSE)
        assert update.task_losses[task] == pytest.approx(single.task_losses[0], rel=1e-5)


def test_the_delta_holds_the_sum_of_the_changes(world) -> None:
    order = world.order("tasks-apart")
    update = world.trainer().train(order)
    shared = order.base.layout.shared
    total = sum(task_change(update, task)[shared] for task in range(2))
    torch.testing.assert_close(update.delta[shared], total, **CLOSE)
    assert set(update.vectors) == {"task 1"}
    assert update.vectors["task 1"][shared.stop :].count_nonzero() == 0


def test_the_backbone_goes_up_once_for_each_task_and_the_work_counts_as_often(world) -> None:
    order = world.order("tasks-apart")
    half, shared = client_half(order.policy), order.base.layout.shared
    assert half.gradient_calls(order, 7) == 0
    assert half.passes(order, 7, 40, tasks=3) == 21 * PLAIN
    assert half.task_bytes_up(order, 1) + half.extra_bytes_up(order) == 0
    assert half.task_bytes_up(order, 3) == 2 * 4 * (shared.stop - shared.start)


def test_a_single_task_is_plain_descent_to_the_bit(world) -> None:
    data = world.data
    owners = np.array([[False, True], [True, False], [True, True]])
    single = FederatedData(data.tasks, data.train, data.test, data.shards, data.validation, owners)
    model = build_model(world.name, world.options, data.input_shape, data.tasks, 99)
    trainer = LocalTrainer(model, single)
    for client in (0, 1):
        apart, plain = (trainer.train(world.order(policy, client)) for policy in ("tasks-apart", "plain"))
        assert torch.equal(apart.delta, plain.delta)
        assert apart.vectors == {}
