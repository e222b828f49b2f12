"""Messages to and from nodes, as Flower carries them (see :mod:`fedmtl.wire` for what is in them)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, TrainOrder, Update
from fedmtl.text import printable, shown
from fedmtl.wire import JSON, STATE, TENSORS, Packet, WireError, pack, pack_order, read_update, size, unpack

ACTOR_DIED = "ActorDiedError"
"""In the reason of an error reply: Flower puts a dead Ray actor back into its pool, so that ever more messages fail."""


def record(packet: Packet) -> RecordDict:
    """A packet as the content of a message."""
    arrays = ArrayRecord({name: Array(array) for name, array in packet.arrays.items()})
    return RecordDict({STATE: ConfigRecord({JSON: packet.text}), TENSORS: arrays})


def train_message(
    order: TrainOrder, node: int, ttl: float, observed: Mapping[str, float | Tensor] | None = None
) -> Message:
    """An order to a node. The reply must be there within `ttl` seconds."""
    content = record(pack_order(order, observed))
    return Message(content, node, MessageType.TRAIN, ttl=ttl, group_id=str(order.base.version))


def query_message(node: int, ttl: float) -> Message:
    """The question which client a node is."""
    return Message(record(pack({})), node, MessageType.QUERY, ttl=ttl, group_id="query")


def evaluate_message(model: GlobalModel, node: int, ttl: float) -> Message:
    """The question how good a model is on a node's held-out data."""
    content = record(pack({"version": model.version, "vector": model.vector}))
    return Message(content, node, MessageType.EVALUATE, ttl=ttl, group_id=str(model.version))


def error_of(reply: Message) -> str | None:
    """What an error reply reports, or None if the reply is none.

    Raises
    ------
    RuntimeError
        If a Ray actor of Flower's simulation engine died: the run cannot go on.
    """
    if not reply.has_error():
        return None
    error = reply.error
    if error.reason and ACTOR_DIED in error.reason:
        raise RuntimeError(f"a Ray actor of the simulation engine died, the run cannot go on: {error.reason}")
    return f"error {error.code}: {printable((error.reason or 'no reason given').strip(), 300)}"


def client_of(reply: Message) -> int:
    """The client that a node says it is.

    Raises
    ------
    WireError
        If it does not say so with a natural number.
    """
    state = unpack(reply.content)
    client = state.get("client") if isinstance(state, dict) else None
    if type(client) is not int or not 0 <= client < 2**31:
        raise WireError(f"partition-id is {shown(client)}, expected a number from 0 on")
    return client


def update_of(reply: Message, order: TrainOrder) -> Update:
    """The update in a reply; one that cannot be read is a failed update, which the strategy rejects with the reason."""
    try:
        update = read_update(reply.content, order)
        update.bytes_up = size(reply.content)
    except WireError as error:
        reason = printable(f"malformed reply: {error}")
        return Update(order.client, order.job, order.base.version, torch.empty(0), 0, 0, failure=reason)
    return update


def arrays_of(model: GlobalModel) -> ArrayRecord:
    """The model under the names of its parameters and floating-point buffers, as in a PyTorch state dictionary."""
    layout = model.layout
    views = layout.views(model.vector)
    return ArrayRecord({e.name: Array(view.numpy()) for e, view in zip(layout.entries, views, strict=True)})


def vector_of(arrays: ArrayRecord, layout: ParameterLayout) -> Tensor:
    """The flat vector of arrays that `arrays_of` made, or of a state dictionary (whose integer buffers are left out).

    Raises
    ------
    ValueError
        If arrays are missing or of another shape.
    """
    vector = torch.empty(layout.size)
    for entry, view in zip(layout.entries, layout.views(vector), strict=True):
        found = arrays[entry.name].numpy() if entry.name in arrays else None
        if found is None or found.shape != entry.shape:
            shape = "missing" if found is None else f"of shape {found.shape}"
            raise ValueError(f"array {entry.name!r} is {shape}, expected shape {entry.shape}")
        view.copy_(torch.from_numpy(found))
    return vector
