"""Whether a state that is being restored is one of the kind that was saved.

A checksum says that a checkpoint is what was written. It may still have been written by other code, so that an entry is
absent, unknown or of another type. `restore_whole` finds that out at one place for everything that has a state, and
`restoring` turns whatever goes wrong into a message with the way to the entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from fedmtl.errors import CheckpointError

_LOOKED_AT = 64
"""Entries of a long list that are compared one by one: what other code wrote differs in all of them."""

_FAULTS = (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError)
"""What loading an entry of another kind ends in."""

_WORDS: dict[Any, str] = {
    type(None): "nothing",
    int | float: "a number",
    str: "a text",
    Sequence: "a list",
    Mapping: "a dictionary",
}


class Stateful(Protocol):
    """What has a state."""

    def state_dict(self) -> dict[str, Any] | None:
        """The state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        ...


@contextmanager
def within(place: str) -> Iterator[None]:
    """Note of an error in the block where it happened; `restoring` says so."""
    try:
        yield
    except Exception as error:
        error.add_note(place)
        raise


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """A state of this file is restored in the block.

    Raises
    ------
    CheckpointError
        If it cannot be; the message has the way to the entry.
    """
    try:
        yield
    except _FAULTS as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
        way = ": ".join([*reversed(getattr(error, "__notes__", [])), what])
        raise CheckpointError(
            f"{path} holds a state that this version of FedMTL cannot restore ({way}): start again with --overwrite, "
            "or finish the run with the version that began it"
        ) from error


def restore_whole(thing: Stateful, state: Mapping[str, Any]) -> None:
    """Restore a state, and see that everything in it was taken and is of the type that it was.

    Raises
    ------
    KeyError, TypeError, ValueError
        If an entry is absent, unknown, or of another type or shape; the message names it.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{kind(state)} where a dictionary was expected")
    refuse_other_kinds(state, thing.state_dict() or {})
    latest: list[str] = []
    try:
        thing.load_state_dict(_Read(state, (), latest))
    except Exception as error:
        for name in reversed(latest):
            error.add_note(name)
        raise
    refuse_difference(state, thing.state_dict())


class _Read(dict[str, Any]):
    """A dictionary, and the dictionaries in it, that note the way to the entry that was read last."""

    def __init__(self, entries: Mapping[str, Any], way: tuple[str, ...], latest: list[str]) -> None:
        inner = {
            key: _Read(entry, (*way, key), latest) if isinstance(entry, Mapping) else entry
            for key, entry in entries.items()
        }
        super().__init__(inner)
        self._way = way
        self._latest = latest

    def __getitem__(self, key: str) -> Any:
        self._latest[:] = (*self._way, key)
        return super().__getitem__(key)


def refuse_difference(saved: Any, held: Any) -> None:
    """See that what was saved has the form of what is held.

    Raises
    ------
    ValueError
        If it has not; the message names the entry.
    """
    if found := difference(saved, held):
        raise ValueError(found)


def difference(saved: Any, held: Any) -> str:
    """Where what was saved first differs in form from what is held: keys, lengths, types, shapes; empty if nowhere."""
    if isinstance(saved, Mapping) and isinstance(held, Mapping):
        if absent := [key for key in held if key not in saved]:
            return f"{absent[0]!r} is missing"
        if unknown := [key for key in saved if key not in held]:
            return f"{unknown[0]!r} is unknown"
        pairs: Iterator[tuple[Any, Any, Any]] = ((key, saved[key], held[key]) for key in saved)
    elif isinstance(saved, list | tuple) and isinstance(held, list | tuple):
        if len(saved) != len(held):
            return f"{len(saved)} entries where {len(held)} are known"
        step = max(1, len(saved) // _LOOKED_AT)
        pairs = ((place, saved[place], held[place]) for place in range(0, len(saved), step))
    else:
        return "" if kind(saved) == kind(held) else f"{kind(saved)} where {kind(held)} was expected"
    return next((f"{key!r}: {found}" for key, one, other in pairs if (found := difference(one, other))), "")


def refuse_other_kinds(state: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
    """Compare a state with the one that its owner has before: same keys have same types, and vectors same lengths.

    Nothing is said of what is None or empty in one of them, nor of the entries of lists.

    Raises
    ------
    TypeError
        If they differ; the message names the entry.
    """
    for key in state.keys() & fresh.keys():
        saved, known = state[key], fresh[key]
        with within(repr(key)):
            if isinstance(saved, Mapping) and isinstance(known, Mapping):
                refuse_other_kinds(saved, known)
            elif saved is None or known is None or (isinstance(known, Tensor) and not known.numel()):
                continue
            elif (found := kind(saved)) != (expected := kind(known)):
                raise TypeError(f"{found} where {expected} was expected")


def kind(value: Any) -> str:
    """What a value of a state is, in words: 3 and 3.0 are both numbers."""
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    if isinstance(value, bool):
        return "true or false"
    words = (
        (type(None), "nothing"),
        (int | float, "a number"),
        (str, "a text"),
        (Sequence, "a list"),
        (Mapping, "a dictionary"),
    )
    return next((word for types, word in words if isinstance(value, types)), type(value).__name__)


def number_or_none(value: float | None) -> float | None:
    """An entry that is a number where it is set.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{kind(value)} where a number was expected")
    return value


def checked_tensor(value: Any) -> Tensor:
    """An entry that is a tensor.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{kind(value)} where a tensor was expected")
    return value


def tensor_or_none(value: Any) -> Tensor | None:
    """An entry that is a tensor where it is set.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    return None if value is None else checked_tensor(value)


def table_columns(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Copies of a table's columns, all of one length.

    Raises
    ------
    KeyError, TypeError, ValueError
        If one is absent, no tensor, or of another length than the first; the message names it.
    """
    arrays = {name: checked_tensor(state[name]).numpy().copy() for name in names}
    shape = (arrays[names[0]].size,)
    if wrong := [name for name in names if arrays[name].shape != shape]:
        raise ValueError(f"{wrong[0]!r} has the shape {arrays[wrong[0]].shape}, {names[0]!r} has {shape[0]} entries")
    return arrays
