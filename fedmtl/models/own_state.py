"""What a module keeps beside its flat vector, which neither travels nor is averaged.

An update must depend on its order alone, whatever the module was used for before and in whichever process. So

- integer and boolean buffers (counters), attributes that are plain values, lists or dictionaries, and attributes that
  were not there at first, are put back to what they were at first before each use;
- a floating-point buffer that the module binds anew (``self.level = 0.9 * self.level``) is copied into the vector, and
  is a view of it again;
- a complex buffer, a tensor or an array in a plain attribute, and a random generator of the module's own, must not
  change: their values would be lost with the process, and are refused by name.

The modules of torch and of this package keep nothing in attributes, and are not looked at; a model of these without
buffers costs nothing.
"""

from __future__ import annotations

import copy
import random
from collections import OrderedDict, deque
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.parameters import ParameterLayout

_KNOWN = ("torch.nn.", "fedmtl.models.")
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_CONTAINERS = (list, dict, OrderedDict, set, deque)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_MISSING = object()


class _Buffer(NamedTuple):
    """A buffer: its module, its name there and in the model, and the tensor that it was at first."""

    module: nn.Module
    key: str
    name: str
    tensor: Tensor


class _Attribute(NamedTuple):
    """An attribute that must not change: its module, its name there and in the model, itself and a copy."""

    module: nn.Module
    key: str
    name: str
    value: Any
    content: Any


class OwnState:
    """What a module keeps beside the flat vector that it is bound to.

    Parameters
    ----------
    model
        The module as it was built, bound to a vector.
    layout
        The vector's layout.

    Examples
    --------
    A counter is put back before each use, and a buffer that is bound anew comes into the vector:

    >>> import torch
    >>> from torch import nn
    >>> from fedmtl.models import MultiTaskModel
    >>> from fedmtl.models.own_state import OwnState
    >>> from fedmtl.parameters import ParameterLayout
    >>> from fedmtl.tasks import Task
    >>> class Levelled(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.calls = 0
    ...         self.register_buffer("level", torch.ones(1))
    ...     def forward(self, inputs):
    ...         self.calls += 1
    ...         self.level = 0.5 * self.level
    ...         return inputs
    >>> model = MultiTaskModel(Levelled(), 2, [Task("height", "regression")])
    >>> layout = ParameterLayout.of(model)
    >>> vector = layout.pack(model)
    >>> layout.bind(model, vector)
    >>> own = OwnState(model, layout)
    >>> _ = model(torch.zeros(1, 2))
    >>> own.gather()
    >>> vector[layout.buffers], model.backbone.calls
    (tensor([0.5000]), 1)
    >>> own.begin()
    >>> model.backbone.calls
    0
    """

    def __init__(self, model: nn.Module, layout: ParameterLayout) -> None:
        buffers = [_place(model, name, tensor) for name, tensor in model.named_buffers()]
        in_vector = {entry.name for entry in layout.entries}
        self._travelling = [buffer for buffer in buffers if buffer.name in in_vector]
        others = [buffer for buffer in buffers if buffer.name not in in_vector]
        self._counters = [(b, b.tensor.clone()) for b in others if not b.tensor.is_complex()]
        self._fixed = [
            _Attribute(b.module, b.key, b.name, b.tensor, b.tensor.clone()) for b in others if b.tensor.is_complex()
        ]
        self._plain: list[tuple[nn.Module, dict[str, Any]]] = []
        for place, module in model.named_modules():
            if not type(module).__module__.startswith(_KNOWN):
                self._look_at(place, module)

    @property
    def known(self) -> bool:
        """Whether there is nothing that could be kept without being sent and saved."""
        return not (self._plain or self._fixed)

    def _look_at(self, place: str, module: nn.Module) -> None:
        plain = {}
        for key, value in vars(module).items():
            if key in _OF_EVERY_MODULE:
                continue
            if isinstance(value, (Tensor, np.ndarray, *_GENERATORS)):
                self._fixed.append(_Attribute(module, key, f"{place}.{key}".lstrip("."), value, _content(value)))
            plain[key] = copy.deepcopy(value) if isinstance(value, _CONTAINERS) else value
        self._plain.append((module, plain))

    def begin(self) -> None:
        """Put back what does not travel; buffers that were bound anew are views of the vector again, as it is."""
        for buffer in self._travelling:
            buffer.module._buffers[buffer.key] = buffer.tensor
        for buffer, value in self._counters:
            buffer.module._buffers[buffer.key] = buffer.tensor
            buffer.tensor.copy_(value)
        for module, plain in self._plain:
            _put_back(module, plain)

    def gather(self) -> None:
        """Take buffers that were bound anew into the vector.

        Raises
        ------
        ConfigError
            If one has another shape or type now.
        """
        for module, key, name, tensor in self._travelling:
            now = module._buffers.get(key)
            if now is tensor:
                continue
            if now is None or now.shape != tensor.shape or not now.is_floating_point():
                kind = "None" if now is None else f"{now.dtype} of shape {tuple(now.shape)}"
                raise ConfigError(
                    f"the model's buffer {name!r} was {tensor.dtype} of shape {tuple(tensor.shape)} and is {kind} "
                    "after training: a buffer must keep its shape and type, for clients' buffers are averaged"
                )
            with torch.no_grad():
                tensor.copy_(now)
            module._buffers[key] = tensor

    def check(self) -> None:
        """See that nothing has changed that can neither be kept nor put back.

        Raises
        ------
        ConfigError
            With the name of what has.
        """
        for module, key, name, value, content in self._fixed:
            now = module._buffers.get(key, vars(module).get(key))
            if now is value and _same(_content(now), content):
                continue
            if isinstance(value, _GENERATORS):
                raise ConfigError(
                    f"the model draws from a generator of its own, {name!r}, whose state would be lost with the "
                    "process: draw from torch's default generator, which each job seeds anew"
                )
            what = "complex buffer" if key in module._buffers else f"attribute {type(value).__name__}"
            raise ConfigError(
                f"the model's {what} {name!r} changes in training, but is no part of what is sent and saved, so that a "
                f"run could not be repeated or resumed: register it as a buffer of floating-point numbers "
                f"(register_buffer({key!r}, ...); a complex one as torch.view_as_real), or do not change it"
            )


def refuse_hidden_state(model: MultiTaskModel, features: Tensor) -> None:
    """Train a model of a user's own on a batch, and see that nothing changes that can neither be kept nor put back.

    Its parameters stay as they are. A model of this package's, and torch's, modules alone is not run.

    Parameters
    ----------
    model
        The model as it was built; its buffers may change.
    features
        The batch, shape [batch, ...].

    Raises
    ------
    ConfigError
        With the name of what changes, or of a complex parameter.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_complex():
            raise ConfigError(
                f"the model's parameter {name!r} is complex, but what is sent and averaged are floating-point numbers: "
                "keep its real and imaginary parts (torch.view_as_real)"
            )
    own = OwnState(model, ParameterLayout.of(model))
    if own.known:
        return
    model.train()
    model.backbone(features)
    own.gather()
    own.check()


def _place(model: nn.Module, name: str, tensor: Tensor) -> _Buffer:
    place, _, key = name.rpartition(".")
    return _Buffer(model.get_submodule(place), key, name, tensor)


def _put_back(module: nn.Module, plain: dict[str, Any]) -> None:
    now = vars(module)
    for key, value in plain.items():
        if isinstance(value, _CONTAINERS):
            now[key] = copy.deepcopy(value)
        elif now.get(key, _MISSING) is not value:
            now[key] = value
    if len(now) > len(plain) + len(_OF_EVERY_MODULE):
        for key in now.keys() - plain.keys() - _OF_EVERY_MODULE:
            del now[key]


def _content(value: Any) -> Any:
    """A copy that a later content can be compared with."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state())
    return value.getstate()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other)
    return bool(one == other)
