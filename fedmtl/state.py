"""States as nested dictionaries, and how these become text and tensors.

A state is a nested dictionary of numbers, strings, booleans, None, lists and tensors. `split` takes the tensors out, so
that the rest is JSON and the tensors can go to safetensors or into a message; `join` puts them back. A tensor that
occurs twice is stored once, and is one tensor again afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, Compression, GlobalModel, TrainOrder, TrainSettings, Update

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


def order_state(order: TrainOrder) -> dict[str, Any]:
    """An order as a state."""
    return {
        "client": order.client,
        "job": order.job,
        "version": order.base.version,
        "base": order.base.vector,
        "steps": order.steps,
        "settings": dataclasses.asdict(order.settings),
        "task_factors": order.task_factors,
        "balancing": {"name": order.balancing.name, "options": dict(order.balancing.options)},
        "policy": order.policy,
        "terms": dict(order.terms),
        "vectors": dict(order.vectors),
        "seed": order.seed,
        "constants": dict(order.constants),
        "compression": None if order.compression is None else dataclasses.asdict(order.compression),
        "transfers": order.transfers,
    }


def order_from_state(state: Mapping[str, Any], layout: ParameterLayout) -> TrainOrder:
    """The order that `order_state` described."""
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
    """The update that `update_state` described."""
    values = dict(state)
    for name in ("tasks", "task_losses", "mean_task_weights", "task_traces"):
        values[name] = tuple(values[name])
    return Update(**values)
