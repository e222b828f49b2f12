"""What a node does with Flower's messages."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import pytest
import torch
from flwr.app import Message, MessageType

from clients.client_app import app, node_of
from clients.trainer import LocalTrainer
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings
from fedmtl.wire import WireError, pack, pack_order, read_update, unpack
from strategies.flower.messages import record
from strategies.task_weights import FedNTKTrace

EXPERIMENT = """
[data]
clients = 4
partition = "iid"
[tasks]
names = ["digit", "ink"]
[model]
name = "linear"
"""


@pytest.fixture
def grid(flower_grid: ModuleType) -> Any:
    return flower_grid.InProcessGrid(app, range(4), {"experiment": EXPERIMENT, "set": ""})


@pytest.fixture
def order(grid: Any) -> TrainOrder:
    layout = node_of(grid.contexts[102]).trainer.layout
    settings = TrainSettings(epochs=1, batch_size=30)
    start = GlobalModel(0, torch.zeros(layout.size), layout)
    return TrainOrder(2, 0, start, None, settings, None, Balancing(), "plain", {}, {}, 9)


def ask(grid: Any, node: int, packet: Any, kind: str = MessageType.TRAIN) -> Message:
    (reply,) = grid.send_and_receive([Message(record(packet), node, kind, ttl=60.0)])
    return reply  # type: ignore[no-any-return]


@pytest.mark.parametrize("balancing", [Balancing(), FedNTKTrace().balancing], ids=lambda b: b.name)
def test_an_order_is_trained_as_the_trainer_trains_it(grid: Any, order: TrainOrder, balancing: Balancing) -> None:
    order = dataclasses.replace(order, balancing=balancing)
    arrived = read_update(ask(grid, 102, pack_order(order)).content, order)
    node = node_of(grid.contexts[102])
    expected = LocalTrainer(node.new_model(), node.data).train(order)
    assert torch.equal(arrived.delta, expected.delta)
    assert arrived.task_losses == expected.task_losses
    assert arrived.task_traces == expected.task_traces
    assert arrived.examples == len(node.data.shards[2])


def test_a_node_refuses_another_clients_order(grid: Any, order: TrainOrder) -> None:
    reply = ask(grid, 101, pack_order(order))
    assert "this node is client 1 and was sent an order for client 2" in reply.error.reason


def test_any_node_trains_an_order_that_carries_the_clients_observations(grid: Any, order: TrainOrder) -> None:
    own = read_update(ask(grid, 102, pack_order(order)).content, order)
    other = read_update(ask(grid, 100, pack_order(order, {})).content, order)
    assert torch.equal(own.delta, other.delta)
    assert not grid.contexts[100].state


def test_a_node_says_which_client_it_is(grid: Any) -> None:
    assert unpack(ask(grid, 103, pack({}), MessageType.QUERY).content) == {"client": 3}


@pytest.mark.parametrize("partition", [4, -1, "two", None])
def test_a_partition_id_that_is_no_client_of_the_experiment_is_named(partition: Any, grid: Any) -> None:
    grid.contexts[103].node_config["partition-id"] = partition
    reply = ask(grid, 103, pack({}), MessageType.QUERY)
    assert f"partition-id = {partition!r}" in reply.error.reason
    assert "data.clients = 4" in reply.error.reason


def test_a_model_is_judged_on_held_out_examples(grid: Any, order: TrainOrder) -> None:
    reply = ask(grid, 102, pack({"version": 0, "vector": order.base.vector}), MessageType.EVALUATE)
    data = node_of(grid.contexts[102]).data
    held_out = data.train.take(data.validation[2])
    metrics = reply.content["metrics"]
    assert metrics["digit/examples"] == metrics["ink/examples"] == len(held_out)
    # A model of zeros says 0 to everything.
    assert metrics["digit/accuracy"] == (held_out.targets[0] == 0).double().mean().item()
    assert metrics["ink/mse"] == pytest.approx(held_out.targets[1].double().square().mean().item(), rel=1e-6)


def test_a_server_with_another_model_is_refused(grid: Any, order: TrainOrder) -> None:
    vector = torch.zeros(order.base.layout.size + 1)
    reply = ask(grid, 102, pack({"version": 0, "vector": vector}), MessageType.EVALUATE)
    assert WireError.__name__ in reply.error.reason
