"""What travels between server and clients: a JSON text and arrays, written here, read there without trust.

Nothing here knows Flower. A message's content is a mapping ``{"state": {"json": text}, "tensors": {name: array}}``,
whose arrays have an attribute `data` that holds the bytes of an ``.npy`` file; Flower's records are of this shape.
Making a record is one call of its constructor, and is left to whoever sends; reading it needs care, and is here.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import TrainOrder, Update
from fedmtl.state import join, order_from_state, order_state, split, update_from_state, update_state
from fedmtl.text import shown
from fedmtl.update_contract import SERVER_SIDE, Expected, fault, form_fault

STATE, JSON, TENSORS = "state", "json", "tensors"
"""Names inside a message: the record of the text, its key, and the record of the arrays."""

_LISTS = ("tasks", "task_losses", "mean_task_weights", "task_traces")
_DTYPES = (np.dtype("float32"), np.dtype("float64"), np.dtype("int64"), np.dtype("bool"))
_LONGEST_JSON = 1 << 24  # parsed, a text can take twenty times its memory


class WireError(Exception):
    """What arrived cannot be what was asked for; the message says in which respect."""


class Packet(NamedTuple):
    """A state on its way: its plain part as JSON, and its arrays by name."""

    text: str
    arrays: dict[str, np.ndarray]


def pack(state: Any) -> Packet:
    """A state (see :mod:`fedmtl.state`) ready to travel. Numbers keep every bit."""
    plain, tensors = split(state)
    return Packet(json.dumps(plain), {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()})


def unpack(content: Mapping[str, Any]) -> Any:
    """The state in a message's content.

    Raises
    ------
    WireError
        If records are missing, the text is no JSON, or an array is damaged, of a strange type or not there.
    """
    try:
        text = content[STATE][JSON]
        if len(text) > _LONGEST_JSON:
            raise WireError(f"the text has {len(text)} characters, expected at most {_LONGEST_JSON}")
        tensors = {name: _tensor(name, array.data) for name, array in content[TENSORS].items()}
        return join(json.loads(text), tensors)
    except (KeyError, TypeError, AttributeError) as error:
        raise WireError(f"the content lacks a part: {error}") from error
    except (ValueError, RecursionError) as error:
        raise WireError(f"the content cannot be read: {error}") from error


def size(content: Mapping[str, Any]) -> int:
    """Bytes of a content that `unpack` has accepted."""
    return len(content[STATE][JSON]) + sum(len(array.data) for array in content[TENSORS].values())


def _tensor(name: str, data: bytes) -> Tensor:
    """The tensor in an ``.npy`` file. The header is checked against the length before any memory is taken."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise WireError(f"array {name!r} has format version {version}, expected (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    start = file.tell()
    if dtype not in _DTYPES or (fortran_order and len(shape) > 1):
        raise WireError(f"array {name!r} is {dtype}, expected one of {', '.join(map(str, _DTYPES))} in C order")
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise WireError(f"array {name!r} claims shape {shape} but holds {len(data) - start} bytes")
    return torch.from_numpy(np.frombuffer(data, dtype, offset=start).reshape(shape).copy())


def pack_order(order: TrainOrder, observed: Mapping[str, float | Tensor] | None = None) -> Packet:
    """An order, and what its client observed on receiving it if that is known on this side (in a simulation)."""
    return pack({"order": order_state(order), "observed": observed})


def carries_observations(content: Mapping[str, Any]) -> bool:
    """Whether an order says what its client observed, so that any node can do it (see `pack_order`)."""
    try:
        return json.loads(content[STATE][JSON])["observed"] is not None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return False  # `read_order` says what is wrong


def read_order(
    content: Mapping[str, Any], layout: ParameterLayout
) -> tuple[TrainOrder, dict[str, float | Tensor] | None]:
    """The order in a message, and what came with it of the client's observations (None if nothing did).

    Raises
    ------
    WireError
        If the content is no order, or the model in it is not of this layout.
    """
    state = unpack(content)
    try:
        order = order_from_state(state["order"], layout)
        observed = state["observed"]
    except (KeyError, TypeError, AttributeError) as error:
        raise WireError(f"the content is no order: {error!r}") from error
    for name, vector in {"base": order.base.vector, **order.vectors}.items():
        _check_vector(f"the order's {name}", vector, layout.size)
    return order, observed


def pack_update(update: Update) -> Packet:
    """An update; times and traffic are left out, the receiver knows them better."""
    return pack({name: value for name, value in update_state(update).items() if name not in SERVER_SIDE})


def read_update(content: Mapping[str, Any], order: TrainOrder) -> Update:
    """The update in a client's answer to an order.

    What can be seen without the strategy is held against :data:`fedmtl.update_contract.CONTRACT`: the type of every
    field, counts, shapes, and that numbers are finite and within their ranges (of an update that says that it failed,
    the types alone). Whether the delta fits the model, and whether the terms and vectors were asked for, is the
    strategy's own check.

    Raises
    ------
    WireError
        If the content is no update, or answers another order.
    """
    state = unpack(content)
    expected = [name for name in Update.__slots__ if name not in SERVER_SIDE]
    if not isinstance(state, dict) or sorted(state) != sorted(expected):
        raise WireError("the content is no update: its fields differ")
    if wrong := [name for name in _LISTS if not isinstance(state[name], list)]:
        raise WireError(f"{wrong[0]} is {shown(state[wrong[0]])}, expected a list")
    update = update_from_state(state)
    if (found := form_fault(update)) is not None:
        raise WireError(found)
    if update.key != order.key:
        raise WireError(f"answers job {update.job} of client {update.client}, expected {tuple(order.key)}")
    layout = order.base.layout
    if update.failure is None and (found := fault(update, Expected(layout.size, len(layout.heads), restored=False))):
        raise WireError(found)
    return update


def _check_vector(name: str, vector: Any, entries: int) -> None:
    if not isinstance(vector, Tensor) or vector.dtype != torch.float32 or vector.shape != (entries,):
        found = f"{vector.dtype} of shape {tuple(vector.shape)}" if isinstance(vector, Tensor) else shown(vector)
        raise WireError(f"{name} is {found}, expected float32 of shape ({entries},)")
