"""States as nested dictionaries, and how these become text and tensors.

A state is a nested dictionary of numbers, strings, booleans, None, lists and tensors. `split` takes the tensors out, so
that the rest is JSON and the tensors can go to safetensors or into a message; `join` puts them back. A tensor that
occurs twice is stored once, and is one tensor again afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, Compression, GlobalModel, TrainOrder, TrainSettings, Update
from fedmtl.settings import ClipBy, TinyClients

_TENSOR = "$tensor"


def split(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """A state without its tensors (each replaced by a reference), and the tensors by name."""
    names: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}

    def take(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = names.setdefault(id(value), f"t{len(names)}")
            tensors[name] = value
            return {_TENSOR: name}
        if isinstance(value, Mapping):
            return {key: take(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [take(entry) for entry in value]
        return value

    return take(state), tensors


def join(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `split` took apart."""
    if isinstance(plain, dict):
        if set(plain) == {_TENSOR}:
            return tensors[plain[_TENSOR]]
        return {key: join(entry, tensors) for key, entry in plain.items()}
    if isinstance(plain, list):
        return [join(entry, tensors) for entry in plain]
    return plain


_LIST, _NUMBER, _NONE = (list, tuple), (int, float), type(None)

_ORDER: Mapping[str, tuple[type, ...]] = {
    "client": (int,),
    "job": (int,),
    "version": (int,),
    "base": (Tensor,),
    "steps": (int, _NONE),
    "settings": (Mapping,),
    "task_factors": (*_LIST, _NONE),
    "balancing": (Mapping,),
    "policy": (str,),
    "terms": (Mapping,),
    "vectors": (Mapping,),
    "seed": (int,),
    "constants": (Mapping,),
    "compression": (Mapping, _NONE),
    "transfers": _LIST,
}
"""The types of an order's entries."""

_SETTINGS: Mapping[str, tuple[type, ...]] = {
    name: _NUMBER if isinstance(usual, float) else (type(usual),) for name, usual in vars(TrainSettings()).items()
} | {"steps": (int, _NONE)}
_CHOICES: Mapping[str, tuple[str, ...]] = {"clip_by": get_args(ClipBy), "tiny_clients": get_args(TinyClients)}
"""The settings that are one of several words."""

_BALANCING: Mapping[str, tuple[type, ...]] = {"name": (str,), "options": (Mapping,)}
_COMPRESSION: Mapping[str, tuple[type, ...]] = {**_BALANCING, "seed": (int,)}

_UPDATE: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("client", "job", "base_version", "examples", "steps"), (int,)),
    **dict.fromkeys(("tasks", "task_losses", "mean_task_weights", "task_traces"), _LIST),
    **dict.fromkeys(("learning_rate", "momentum"), _NUMBER),
    "delta": (Tensor,),
    "task_sketches": (Tensor, _NONE),
    "failure": (str, _NONE),
    "terms": (Mapping,),
    "vectors": (Mapping,),
    **dict.fromkeys(("dispatched_at", "arrived_at"), _NUMBER),
    **dict.fromkeys(("bytes_up", "bytes_down", "arrived_version"), (int,)),
}
"""The types of an update's entries."""


def check_types(state: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    """See that entries are there, and of one of these types.

    Raises
    ------
    KeyError, TypeError
        If one is not; the message names it.
    """
    for name, expected in types.items():
        value = state[name]
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            raise TypeError(f"{name!r}: {type(value).__name__} where {expected[0].__name__} was expected")


def order_state(order: TrainOrder) -> dict[str, Any]:
    """An order as a state."""
    return {
        "client": order.client,
        "job": order.job,
        "version": order.base.version,
        "base": order.base.vector,
        "steps": order.steps,
        "settings": dict(vars(order.settings)),
        "task_factors": order.task_factors,
        "balancing": {"name": order.balancing.name, "options": dict(order.balancing.options)},
        "policy": order.policy,
        "terms": dict(order.terms),
        "vectors": dict(order.vectors),
        "seed": order.seed,
        "constants": dict(order.constants),
        "compression": None if order.compression is None else dict(vars(order.compression)),
        "transfers": order.transfers,
    }


def order_from_state(state: Mapping[str, Any], layout: ParameterLayout) -> TrainOrder:
    """The order that `order_state` described.

    Raises
    ------
    KeyError, TypeError
        If an entry is absent, of another type, or a word that this version does not know; the message names it.
    """
    check_types(state, _ORDER)
    check_types(state["settings"], _SETTINGS)
    for name, words in _CHOICES.items():
        if (given := state["settings"][name]) not in words:
            raise TypeError(f"{name!r}: {given!r} where one of {', '.join(words)} was expected")
    check_types(state["balancing"], _BALANCING)
    if state["compression"] is not None:
        check_types(state["compression"], _COMPRESSION)
    factors = state["task_factors"]
    return TrainOrder(
        client=state["client"],
        job=state["job"],
        base=GlobalModel(state["version"], state["base"], layout),
        steps=state["steps"],
        settings=TrainSettings(**state["settings"]),
        task_factors=None if factors is None else tuple(factors),
        balancing=Balancing(state["balancing"]["name"], state["balancing"]["options"]),
        policy=state["policy"],
        terms=state["terms"],
        vectors=state["vectors"],
        seed=state["seed"],
        constants=state["constants"],
        compression=None if state["compression"] is None else Compression(**state["compression"]),
        transfers=tuple(state["transfers"]),
    )


def update_state(update: Update) -> dict[str, Any]:
    """An update as a state."""
    return {name: getattr(update, name) for name in Update.__slots__}


def update_from_state(state: Mapping[str, Any]) -> Update:
    """The update that `update_state` described; whoever has it from outside looks at its fields."""
    values = dict(state)
    for name in ("tasks", "task_losses", "mean_task_weights", "task_traces"):
        values[name] = tuple(values[name])
    return Update(**values)


def kept_update(state: Mapping[str, Any]) -> Update:
    """The update that `update_state` described, of one that has arrived.

    Raises
    ------
    KeyError, TypeError
        If an entry is absent, or of another type; the message names it.
    """
    check_types(state, _UPDATE)
    return update_from_state(state)
