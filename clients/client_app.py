"""The client app: what a Flower node runs, in a deployment and in Flower's simulation engine.

A node is the client that its ``partition-id`` names. It builds data and model from the run configuration, does orders,
and keeps the client's own state in the context that Flower keeps for it. Where an order brings along what the client
observed, somebody else keeps that state (the event heap of a simulation), and any node can train any client.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.policies import client_half
from clients.policies.base import ClientState
from clients.sending import send_compressed
from clients.trainer import LocalTrainer
from fedmtl.config import ExperimentConfig
from fedmtl.data.build import build_data, build_own_data, can_tell_apart
from fedmtl.data.federated import FederatedData
from fedmtl.errors import ConfigError
from fedmtl.evaluation import evaluate as metrics_of
from fedmtl.models import MultiTaskModel, build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import TrainOrder, Update
from fedmtl.run_config import experiment_config
from fedmtl.wire import (
    JSON,
    STATE,
    TENSORS,
    Packet,
    WireError,
    carries_observations,
    pack,
    pack_update,
    read_order,
    unpack,
)

app = ClientApp()


class Node:
    """What a node needs to work: data and a trainer, both from the experiment's configuration.

    Parameters
    ----------
    config
        The experiment.
    client
        The client that the node is, if it needs nobody else's data.
    """

    def __init__(self, config: ExperimentConfig, client: int | None = None) -> None:
        self._config = config
        self.data: FederatedData = build_data(config) if client is None else build_own_data(config, client)
        self.trainer = LocalTrainer(self.new_model(), self.data, device=config.engine.device)

    def new_model(self) -> MultiTaskModel:
        """A module of the experiment's model."""
        model, data = self._config.model, self.data
        return build_model(model.name, model.options, data.input_shape, data.tasks, self._config.seeds.model)


@functools.lru_cache(maxsize=1)
def _node(experiment: str, overrides: str, client: int | None) -> Node:
    # Flower may start a process for each message, or keep one for many: what can be kept is kept, nothing relies on it.
    torch.set_num_threads(1)
    return Node(_config(experiment, overrides), client)


@functools.lru_cache(maxsize=1)
def _config(experiment: str, overrides: str) -> ExperimentConfig:
    return experiment_config({"experiment": experiment, "set": overrides})


def _settings_of(context: Context) -> tuple[str, str]:
    return str(context.run_config.get("experiment", "")), str(context.run_config.get("set", ""))


def node_of(context: Context, *, anybody: bool = False) -> Node:
    """The node for a context's run configuration, with the data of its own client at least, or of anybody."""
    settings = _settings_of(context)
    return _node(*settings, client_of(context) if can_tell_apart(_config(*settings)) and not anybody else None)


def client_of(context: Context) -> int:
    """The client that a node's configuration names.

    Raises
    ------
    ConfigError
        If it names none of the experiment's clients.
    """
    client, clients = context.node_config.get("partition-id"), _config(*_settings_of(context)).data.clients
    if type(client) is not int or not 0 <= client < clients:
        raise ConfigError(
            f"partition-id = {client!r} in the node's configuration: expected a number from 0 to {clients - 1}, as the "
            f"experiment has data.clients = {clients}"
        )
    return client


@app.query()
def query(message: Message, context: Context) -> Message:
    """Say which client this node is."""
    node_of(context)  # who cannot read its data shall not take part
    return Message(_record(pack({"client": client_of(context)})), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Do the job that an order asks for."""
    node = node_of(context, anybody=carries_observations(message.content))
    order, observed = read_order(message.content, node.trainer.layout)
    update = _train_own(node, order, context) if observed is None else node.trainer.train(order, observed)
    return Message(_record(pack_update(update)), reply_to=message)


def _train_own(node: Node, order: TrainOrder, context: Context) -> Update:
    """Train as the client that this node is, with the state that is kept here."""
    if order.client != (client := client_of(context)):
        raise ConfigError(f"this node is client {client} and was sent an order for client {order.client}")
    half = client_half(order.policy)
    state: ClientState = unpack(context.state) if STATE in context.state else {}
    update = node.trainer.train(order, half.observe(order, state))
    half.conclude(order, update, state)
    send_compressed(order, update, state)
    for name, part in _record(pack(state)).items():
        context.state[name] = part
    return update


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Judge a model on this client's held-out examples, in the tasks that the client owns."""
    node = node_of(context)
    client, data = client_of(context), node.data
    vector = unpack(message.content)["vector"]
    model = node.new_model()
    layout = ParameterLayout.of(model)
    if vector.shape != (layout.size,):
        raise WireError(f"the model has {tuple(vector.shape)} entries, this node's has {layout.size}")
    layout.bind(model, vector)
    metrics: dict[str, Any] = {}
    held_out = data.train.take(data.validation[client])
    if len(held_out):
        values = metrics_of(model, data.tasks, held_out)
        for task in (data.tasks[index] for index in data.tasks_of(client)):
            metrics[f"{task.name}/{task.metric}"] = values[task.name]
            metrics[f"{task.name}/examples"] = len(held_out)
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _record(packet: Packet) -> RecordDict:
    arrays = ArrayRecord({name: Array(array) for name, array in packet.arrays.items()})
    return RecordDict({STATE: ConfigRecord({JSON: packet.text}), TENSORS: arrays})
