"""States as a few flat arrays, which are written and read at the speed of arrays.

A state (:mod:`fedmtl.state`) of 100,000 clients is millions of Python objects, nearly all of them in long lists of
equal form: clients and numbers, or orders with the same fields. `pack` turns such lists into columns. What is left,
the skeleton, is JSON of some kilobytes. Every number comes back with its type and bits (but for the bits of a NaN
outside of columns), every text and key as it was; tuples come back as lists, as they do from JSON.

The skeleton has a JSON object for a dictionary, a JSON array with a tag for everything else that is no plain value:

==========================  ==========================================================================================
``["l", node, ...]``        a short list
``["c", n, column]``        a list of n entries
``["t", k]``                the k-th tensor
==========================  ==========================================================================================

and for a column

==========================  ==========================================================================================
``["=", value]``            the same value n times
``["i" | "u", start]``      integers that fit 64 bits, with or without a sign
``["f" | "b", start]``      floats, booleans
``["s", texts, start]``     few texts; their places in the list are bytes
``["v", [node, ...]]``      whatever has no better form
``["t", column]``           tensors, by number
``["d", {key: column}]``    dictionaries with the same keys
``["r", [column, ...]]``    lists of the same short length
``["g", column, n, node]``  other lists: their lengths, and the column of all n entries
``["m", start, [...]]``     of several kinds, which are bytes; for each its count and column
==========================  ==========================================================================================

Long because both directions of one format stand side by side.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SHORT = 16
"""Lists of fewer entries stay in the skeleton."""

_WIDEST = 32
"""Lists of one length up to this, each an entry of a longer list, are cut into a column for each place."""

_KINDS = 256
"""As many kinds, or texts, as a byte can tell apart."""

_SKELETON, _INTEGERS, _FLOATS, _BYTES, _TENSORS = "skeleton", "integers", "floats", "bytes", "tensors"


def pack(state: Any) -> dict[str, Tensor]:
    """A state as tensors by name: the skeleton, its columns, and its own tensors, those of one type and shape stacked.

    Raises
    ------
    TypeError
        If the state holds what is no number, text, None, tensor, list or dictionary, or a key that is no text.
    """
    packer = _Packer()
    root = packer.node(state)
    groups, stacks = _stacked(packer.tensors)
    skeleton = {"root": root, "groups": packer.node(groups), "stacks": len(stacks)}
    packed = {
        _INTEGERS: packer.integers.joined(),
        _FLOATS: packer.floats.joined(),
        _BYTES: packer.bytes.joined(),
        _SKELETON: np.frombuffer(zlib.compress(json.dumps(skeleton).encode("ascii"), 1), dtype=np.uint8).copy(),
    }
    stacked = {f"{_TENSORS}.{number}": stack for number, stack in enumerate(stacks)}
    return {name: torch.from_numpy(array) for name, array in packed.items()} | stacked


def unpack(packed: Mapping[str, Tensor]) -> Any:
    """The state that `pack` packed. Its tensors share no memory, neither with `packed` nor with each other.

    Raises
    ------
    KeyError, ValueError, IndexError, TypeError
        If these are no tensors that `pack` made.
    """
    skeleton = json.loads(zlib.decompress(packed[_SKELETON].numpy().tobytes()))
    unpacker = _Unpacker(packed)
    groups = unpacker.node(skeleton["groups"])
    # Clones, because a file's tensors begin anywhere: sums are taken in another order where memory is aligned
    # otherwise, and a resumed run shall have the same bits.
    rows = [iter(packed[f"{_TENSORS}.{number}"].unbind()) for number in range(skeleton["stacks"])]
    unpacker.tensors = [next(rows[group]).clone() for group in groups]
    return unpacker.node(skeleton["root"])


def _stacked(tensors: Sequence[Tensor]) -> tuple[list[int], list[Tensor]]:
    """Which stack each tensor is in, and the stacks: tensors of one type and shape, in their order."""
    places: dict[tuple[torch.dtype, torch.Size], int] = {}
    members: list[list[Tensor]] = []
    groups = []
    for tensor in tensors:
        place = places.setdefault((tensor.dtype, tensor.shape), len(places))
        if place == len(members):
            members.append([])
        members[place].append(tensor.detach().cpu())
        groups.append(place)
    return groups, [torch.stack(rows) for rows in members]


class _Arrays:
    """Arrays of one type that become one."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype = dtype
        self._arrays: list[NDArray[Any]] = []
        self._size = 0

    def add(self, array: NDArray[Any]) -> int:
        """Where it begins."""
        start = self._size
        self._arrays.append(array)
        self._size += len(array)
        return start

    def joined(self) -> NDArray[Any]:
        return np.concatenate([np.zeros(0, self._dtype), *self._arrays])


class _Packer:
    """Turns values into nodes, and fills the arrays that these refer to."""

    def __init__(self) -> None:
        self.integers, self.floats, self.bytes = _Arrays(np.int64), _Arrays(np.float64), _Arrays(np.uint8)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}  # by the identities of the tensors, which the list keeps alive
        self._columns: dict[type, Callable[[list[Any]], list[Any]]] = {
            type(None): lambda values: ["=", None],
            bool: self._booleans,
            int: self._integers,
            float: self._floats,
            str: self._texts,
            Tensor: lambda values: ["t", self._integers([self._number(tensor) for tensor in values])],
            dict: self._dictionaries,
            list: self._lists,
        }

    def node(self, value: Any) -> Any:
        value = _plain(value)
        if isinstance(value, Tensor):
            return ["t", self._number(value)]
        if isinstance(value, dict):
            return {_text(key): self.node(entry) for key, entry in value.items()}
        if isinstance(value, list):
            if len(value) < _SHORT:
                return ["l", *map(self.node, value)]
            return ["c", len(value), self._column(value)]
        return value

    def _number(self, tensor: Tensor) -> int:
        number = self._numbers.setdefault(id(tensor), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(tensor)
        return number

    def _column(self, values: list[Any]) -> list[Any]:
        """The column of at least one value."""
        types = set(map(type, values))
        if not types <= self._columns.keys():
            values = [_plain(value) for value in values]
            types = set(map(type, values))
        if len(types) == 1:
            return self._columns[types.pop()](values)
        return self._mixture(values, list(map(type, values)))

    def _mixture(self, values: list[Any], kinds: Sequence[Any]) -> list[Any]:
        codes = {kind: code for code, kind in enumerate(dict.fromkeys(kinds))}
        if len(codes) > _KINDS:
            return ["v", [self.node(value) for value in values]]
        groups: list[list[Any]] = [[] for _ in codes]
        coded = [codes[kind] for kind in kinds]
        for code, value in zip(coded, values, strict=True):
            groups[code].append(value)
        columns = [[len(group), self._column(group)] for group in groups]
        return ["m", self.bytes.add(np.array(coded, np.uint8)), columns]

    def _booleans(self, values: list[bool]) -> list[Any]:
        if len(set(values)) == 1:
            return ["=", values[0]]
        return ["b", self.bytes.add(np.array(values, np.uint8))]

    def _integers(self, values: list[int]) -> list[Any]:
        if values.count(values[0]) == len(values):
            return ["=", values[0]]
        try:
            return ["i", self.integers.add(np.array(values, np.int64))]
        except OverflowError:
            pass
        try:
            return ["u", self.integers.add(np.array(values, np.uint64).view(np.int64))]
        except OverflowError:
            return ["v", values]

    def _floats(self, values: list[float]) -> list[Any]:
        array = np.array(values, np.float64)
        bits = array.view(np.int64)
        if bool((bits == bits[0]).all()) and values[0] == values[0]:  # JSON does not know one NaN from another
            return ["=", values[0]]
        return ["f", self.floats.add(array)]

    def _texts(self, values: list[str]) -> list[Any]:
        places = {text: place for place, text in enumerate(dict.fromkeys(values))}
        if len(places) == 1:
            return ["=", values[0]]
        if len(places) > _KINDS:
            return ["v", values]
        return ["s", list(places), self.bytes.add(np.array([places[text] for text in values], np.uint8))]

    def _dictionaries(self, values: list[dict[str, Any]]) -> list[Any]:
        keys = list(map(tuple, values))
        if len(set(keys)) > 1:
            return self._mixture(values, keys)
        return ["d", {_text(key): self._column([value[key] for value in values]) for key in keys[0]}]

    def _lists(self, values: list[list[Any]]) -> list[Any]:
        lengths = list(map(len, values))
        if len(set(lengths)) == 1 and lengths[0] <= _WIDEST:
            return ["r", [self._column(list(place)) for place in zip(*values, strict=True)]]
        entries = list(itertools.chain.from_iterable(values))
        return ["g", self._integers(lengths), len(entries), self._column(entries) if entries else None]


def _plain(value: Any) -> Any:
    """A value as one of the types that states consist of."""
    if value is None or type(value) in (bool, int, float, str, dict, list, Tensor):
        return value
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    raise TypeError(f"a state holds {type(value).__name__}: take numbers, texts, lists, dictionaries, tensors")


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a state has the key {key!r}: keys are texts; take a list of pairs")
    return str.__str__(key)


class _Unpacker:
    """Turns nodes back into values."""

    def __init__(self, packed: Mapping[str, Tensor]) -> None:
        self._arrays: dict[str, NDArray[Any]] = {name: packed[name].numpy() for name in (_INTEGERS, _FLOATS, _BYTES)}
        self.tensors: list[Tensor] = []

    def node(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {key: self.node(entry) for key, entry in node.items()}
        if not isinstance(node, list):
            return node
        match node:
            case ["l", *entries]:
                return [self.node(entry) for entry in entries]
            case ["c", count, column]:
                return self._column(column, count)
            case ["t", number]:
                return self.tensors[number]
        raise ValueError(f"unknown node {node[:1]}")

    def _column(self, column: list[Any], count: int) -> list[Any]:
        match column:
            case ["=", value]:
                return [value] * count
            case ["i", start]:
                return _values(self._slice(_INTEGERS, start, count))
            case ["u", start]:
                return _values(self._slice(_INTEGERS, start, count).view(np.uint64))
            case ["f", start]:
                return _values(self._slice(_FLOATS, start, count))
            case ["b", start]:
                return _values(self._slice(_BYTES, start, count).astype(bool))
            case ["s", texts, start]:
                return [texts[place] for place in self._slice(_BYTES, start, count)]
            case ["v", nodes]:
                return [self.node(node) for node in nodes]
            case ["t", numbers]:
                return [self.tensors[number] for number in self._column(numbers, count)]
            case ["d", columns]:
                rows = self._rows(columns.values(), count)
                return [dict(zip(columns, row, strict=True)) for row in rows]
            case ["r", columns]:
                return list(map(list, self._rows(columns, count)))
            case ["g", lengths, total, entries]:
                flat = iter(self._column(entries, total) if total else ())
                return [list(itertools.islice(flat, length)) for length in self._column(lengths, count)]
            case ["m", start, groups]:
                parts = [iter(self._column(part, size)) for size, part in groups]
                return [next(parts[code]) for code in self._slice(_BYTES, start, count)]
        raise ValueError(f"unknown column {column[:1]}")

    def _rows(self, columns: Iterable[list[Any]], count: int) -> Iterable[tuple[Any, ...]]:
        found = [self._column(column, count) for column in columns]
        return zip(*found, strict=True) if found else [()] * count

    def _slice(self, name: str, start: int, count: int) -> NDArray[Any]:
        return self._arrays[name][start : start + count]


def _values(array: NDArray[Any]) -> list[Any]:
    """An array's entries as Python has them."""
    values: list[Any] = array.tolist()
    return values
