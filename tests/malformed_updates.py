"""Answers of hostile clients: an honest reply in, one that breaks the contract of updates out.

Every kind breaks the contract (docs/update-contract.md), so that none may be applied. It needs nothing but NumPy, so
that a SuperNode's process can load it by itself (tests/simulations/flower/test_malformed_messages.py). How many are
tried is said by the environment: `count_of`.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

LONE_SURROGATE, ESCAPES = "\ud800", "\x00\x1b[2J\x07\u202e"
_FULL_LISTS = ("task_losses", "mean_task_weights")


class Malformed(NamedTuple):
    """A reply: what is wrong with it, its text, and its arrays as the bytes of ``.npy`` files."""

    kind: str
    text: str
    arrays: dict[str, bytes]


State = dict[str, Any]
Arrays = dict[str, Any]
Kind = Callable[[random.Random, State, Arrays], bool | None]
"""Spoils a reply in place; False where there is nothing of the kind to spoil."""


def count_of(name: str, usual: int) -> int:
    """How many messages to try: the environment's ``FEDMTL_<name>``, such as FEDMTL_MALFORMED=10000."""
    return int(os.environ.get(f"FEDMTL_{name}", usual))


def malform(number: int, text: str, arrays: Mapping[str, np.ndarray]) -> Malformed:
    """The hostile reply of that number, made of an honest one: first every kind in turn, then any, and mixtures."""
    rng = random.Random(number)
    names = list(KINDS)
    start = number % len(names) if number < len(names) else rng.randrange(len(names))
    chosen = [names[start]] if number < len(names) or rng.random() < 0.7 else rng.sample(names, 3)
    for place in range(len(names)):
        state, sent = json.loads(text), dict(arrays)
        done = [name for name in chosen if KINDS[name](rng, state, sent) is not False]
        if done:
            break
        chosen = [names[(start + place + 1) % len(names)]]
    raw = state.pop("", None)
    written = raw if raw is not None else json.dumps(state)
    return Malformed(" + ".join(done), written, {name: _npy(array) for name, array in sent.items()})


def _npy(array: Any) -> bytes:
    if isinstance(array, bytes):
        return array
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _delta(state: State) -> str:
    """The name of the array that is the delta; a mixture may have replaced the reference."""
    reference = state.get("delta")
    name = reference.get("$tensor") if isinstance(reference, dict) else None
    return name if isinstance(name, str) else "t0"


JUNK = (
    None,
    True,
    "text",
    LONE_SURROGATE,
    ESCAPES,
    [],
    {},
    [[]],
    {"$tensor": "nowhere"},
    -1,
    2**53,
    10**30,
    1.5,
    "9" * 600,
)


def _junk_in(field: str, *fine: Any) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> None:
        state[field] = rng.choice([junk for junk in JUNK if not any(type(junk) is type(f) and junk == f for f in fine)])

    return spoil


def _value(field: str, *values: Any) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> None:
        state[field] = rng.choice(values)

    return spoil


def _other(field: str) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
        if type(state.get(field)) is not int:
            return False
        state[field] += rng.choice((1, 7, 10**9))
        return None

    return spoil


def _entry(*values: Any) -> Kind:
    """An entry of a list with one number for each task is this."""

    def spoil(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
        field = rng.choice(_FULL_LISTS)
        if not isinstance(state.get(field), list) or not state[field]:
            return False
        state[field] = [*state[field][:-1], rng.choice(values)]
        return None

    return spoil


def _loss(*values: Any) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
        if not isinstance(state.get("task_losses"), list) or not state["task_losses"]:
            return False
        state["task_losses"] = [*state["task_losses"][1:], rng.choice(values)]
        return None

    return spoil


def _length(field: str, change: int) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
        values, owned = state.get(field), state.get("tasks")
        if not isinstance(values, list) or not isinstance(owned, list) or len(owned) + change < 1:
            return False
        state[field] = [0.5] * (len(owned) + change)
        return None

    return spoil


def _spoilt_delta(change: Callable[[random.Random, np.ndarray], Any]) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
        name = _delta(state)
        delta = arrays.get(name)
        if not isinstance(delta, np.ndarray) or delta.dtype != np.float32 or delta.ndim != 1 or not len(delta):
            return False  # a mixture has spoilt it already
        arrays[name] = change(rng, delta.copy())
        return None

    return spoil


def _one(value: float) -> Callable[[random.Random, np.ndarray], np.ndarray]:
    def change(rng: random.Random, delta: np.ndarray) -> np.ndarray:
        delta[rng.randrange(len(delta))] = value
        return delta

    return change


def _spoilt_vector(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
    vectors = state.get("vectors")
    if not isinstance(vectors, dict) or not vectors:
        return False
    name = rng.choice(sorted(vectors))
    wrong = rng.choice((np.full(3, 1.0, np.float32), np.zeros(0, np.float32), None))
    if wrong is None:
        del vectors[name]
    else:
        arrays["spoilt"], vectors[name] = wrong, {"$tensor": "spoilt"}
    return None


def _unasked_vector(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
    if not isinstance(state.get("vectors"), dict):
        return False
    for number in range(rng.choice((1, 200))):
        state["vectors"][f"task {number + 70}"] = state["delta"]
    return None


def _terms(*made: Callable[[], dict[str, Any]]) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> bool | None:
        if not isinstance(state.get("terms"), dict):
            return False
        state["terms"] |= rng.choice(made)()
        return None

    return spoil


def _flipped(rng: random.Random, array: np.ndarray) -> bytes:
    """Bytes of the file's header that are others, so that type, shape or format are."""
    data = bytearray(_npy(array))
    for _ in range(3):
        data[rng.randrange(10)] ^= 1 << rng.randrange(8)
    return bytes(data) if bytes(data[:10]) != _npy(array)[:10] else b""


def _raw(change: Callable[[random.Random, str], str]) -> Kind:
    def spoil(rng: random.Random, state: State, arrays: Arrays) -> None:
        state[""] = change(rng, json.dumps({name: value for name, value in state.items() if name}))

    return spoil


def _dropped(rng: random.Random, state: State, arrays: Arrays) -> None:
    del state[rng.choice([name for name in state if name])]


def _added(rng: random.Random, state: State, arrays: Arrays) -> None:
    state[rng.choice(("dispatched_at", "arrived_at", "bytes_up", LONE_SURROGATE, "more"))] = rng.choice(
        (0, 1e9, math.nan)
    )


def _no_arrays(rng: random.Random, state: State, arrays: Arrays) -> None:
    arrays.clear()


KINDS: dict[str, Kind] = {
    "junk as client": _junk_in("client"),
    "junk as job": _junk_in("job"),
    "junk as version": _junk_in("base_version"),
    "junk as examples": _junk_in("examples"),
    "junk as steps": _junk_in("steps"),
    "junk as tasks": _junk_in("tasks"),
    "junk as losses": _junk_in("task_losses", []),
    "junk as task weights": _junk_in("mean_task_weights", []),
    "junk as traces": _junk_in("task_traces", []),
    "junk as sketches": _junk_in("task_sketches", None),
    "junk as rate": _junk_in("learning_rate"),
    "junk as momentum": _junk_in("momentum"),
    "junk as terms": _junk_in("terms", {}),
    "junk as vectors": _junk_in("vectors", {}),
    "junk as delta": _junk_in("delta"),
    "junk as failure": _junk_in("failure", None),
    "text that no file can hold": _value("failure", LONE_SURROGATE, ESCAPES, f"a{LONE_SURROGATE}b", "\n" * 400),
    "another client": _other("client"),
    "another job": _other("job"),
    "another version": _other("base_version"),
    "too many examples": _value("examples", 10**9, 2**52, 10**5),
    "no examples": _value("examples", 0),
    "too many steps": _value("steps", 10**7, 10**4, 2**52),
    "no steps": _value("steps", 0),
    "bool for a number": _value("steps", True),
    "tasks that there are not": _value("tasks", [99], [0, 0], [-1], [], [True], [0.0], list(range(10**4))),
    "a loss below 0": _loss(-5, -1e-3, -1e30),
    "a loss beyond single precision": _loss(1e50, 4e38, 10**15 * 1e30),
    "a loss that is no number": _loss(math.nan, math.inf, -math.inf, None, "0.5", True),
    "too few losses": _length("task_losses", -1),
    "too many losses": _length("task_losses", 1),
    "too many task weights": _length("mean_task_weights", 5),
    "a number that is none": _entry(math.nan, math.inf, None, "1.0", True, [1.0]),
    "a task weight below 0": _value("mean_task_weights", [-1e9, -1e9], [1.0, -1.0]),
    "traces that are no numbers": _value("task_traces", [math.nan, 1.0], [math.inf, 0.0], [1e50, 0.0]),
    "a rate that nobody asked for": _value("learning_rate", 1e9, 5.0, -1.0, math.nan, math.inf),
    "a momentum that nobody asked for": _value("momentum", 1.0, -0.5, 0.999, math.nan, 1e9),
    "terms that nobody asked for": _terms(
        lambda: {f"term {n}": 0.5 for n in range(10_000)}, lambda: {LONE_SURROGATE: 1.0}
    ),
    "a similarity that is none": _terms(lambda: {"similarity": math.nan}, lambda: {"similarity": -1e9}),
    "a term of another type": _terms(lambda: {"similarity": "high"}, lambda: {"similarity": True}, lambda: {"x": None}),
    "vectors that nobody asked for": _unasked_vector,
    "a vector of another shape, or none": _spoilt_vector,
    "entries of 1e6": _spoilt_delta(lambda rng, delta: np.full_like(delta, 1e6)),
    "one entry of 1e14": _spoilt_delta(_one(1e14)),
    "one entry of 1e30": _spoilt_delta(_one(1e30)),
    "an entry that is no number": _spoilt_delta(_one(math.nan)),
    "an infinite entry": _spoilt_delta(_one(-math.inf)),
    "a thousand times as long": _spoilt_delta(lambda rng, delta: (delta + np.float32(1.0)) * np.float32(1e3)),
    "a short delta": _spoilt_delta(lambda rng, delta: delta[: rng.randrange(len(delta))]),
    "a long delta": _spoilt_delta(lambda rng, delta: np.concatenate([delta, delta])),
    "a delta with two dimensions": _spoilt_delta(lambda rng, delta: delta[None]),
    "a delta of doubles": _spoilt_delta(lambda rng, delta: delta.astype(np.float64)),
    "a delta of whole numbers": _spoilt_delta(lambda rng, delta: delta.astype(np.int64)),
    "a delta of texts": _spoilt_delta(lambda rng, delta: delta.astype("U3")),
    "a delta without bytes": _spoilt_delta(lambda rng, delta: b""),
    "a delta that is cut": _spoilt_delta(lambda rng, delta: _npy(delta)[: rng.randrange(1, 100)]),
    "a delta with another header": _spoilt_delta(_flipped),
    "a text that is cut": _raw(lambda rng, text: text[: rng.randrange(len(text) - 1)]),
    "a text that is none": _raw(lambda rng, text: rng.choice(("", "null", "[]", "3", "NaN", '"text"', "{", "\x00"))),
    "a text that is deep": _raw(lambda rng, text: "[" * 100_000),
    "a field that is missing": _dropped,
    "a field too many": _added,
    "no arrays": _no_arrays,
}
"""Every way in which a reply is spoilt, by what it is called in reports."""
