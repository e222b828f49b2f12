"""The contract of an update: what each field is, and what it must be like to be applied.

`CONTRACT` has a rule for every field of :class:`fedmtl.protocol.Update`. The checks are read from it, on the wire
(:mod:`fedmtl.wire`) and by the strategy (:mod:`strategies.core.update_checks`), and so is the page
``docs/update-contract.md``. What a single update cannot show, such as whether it is longer than all others, is not here
but in :mod:`strategies.core.guard`. Long because each field's meaning, range and check stand side by side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedmtl.protocol import Update
from fedmtl.text import LONGEST as LONGEST_TEXT
from fedmtl.text import shown

LONGEST = 1e15
"""An L2 norm beyond which a vector is of no use: sums and squares of such vectors would not be finite for long."""

LARGEST = torch.finfo(torch.float32).max
"""What a client measures it measures in single precision, so that no honest number is larger."""

MOST_WEIGHT = 1e8
"""The largest size of a task's weight where weights may be negative."""

_FLOATS, _INTS = {float}, {int}
_COUNTS = 2**53  # whole numbers below are exact in JSON, and fit any column
_ROUNDING = 1e-6  # a client may have rounded to single precision

Range = tuple[float, float]
"""The least and the largest value."""


class Claim(NamedTuple):
    """What a client says of its data with every update, and what cannot change during a run.

    Attributes
    ----------
    examples
        Training examples.
    tasks
        Indices of the tasks that it owns.
    """

    examples: int
    tasks: tuple[int, ...]


class Reportable(NamedTuple):
    """What may come up beside an update.

    Attributes
    ----------
    vectors
        The names of flat vectors, and whether each enters the model (or else is only measured by).
    terms
        The names of numbers, and the range of each.
    """

    vectors: Mapping[str, bool] = MappingProxyType({})
    terms: Mapping[str, Range] = MappingProxyType({})


class Lengths:
    """Takes the squared L2 norm of each vector of an update, once.

    Parameters
    ----------
    heads
        Slices of the delta whose squared norms are wanted, too.

    Attributes
    ----------
    squares
        Of ``"delta"`` and of each further vector, by name.
    of_heads
        Of the delta's slices.
    """

    def __init__(self, heads: Sequence[slice] = ()) -> None:
        self._heads = heads
        self.squares: dict[str, float] = {}
        self.of_heads: tuple[float, ...] = ()

    def square(self, name: str, vector: Tensor) -> float:
        """``||vector||^2``; not finite if an entry is not."""
        found = self.squares[name] = torch.dot(vector, vector).item()
        if name == "delta" and self._heads:
            parts = [vector[head] for head in self._heads]
            self.of_heads = tuple(torch.dot(part, part).item() for part in parts)
        return found


@dataclass(slots=True)
class Expected:
    """What an update is held against. What is None is not known where it is checked.

    Attributes
    ----------
    entries
        P, the length of the model's vector.
    heads
        Tasks of the model.
    restored
        Whether the delta is what it was before compression, so that its length is P.
    least_steps, most_steps
        Local steps that it must, and may, come of.
    rate, momentum
        The largest that the client may have trained with.
    required
        The vectors that must come with it.
    reportable
        From the tasks of an update to what may come with it.
    sketch
        m, the length of a task's sketch; 0 if none was asked for.
    signed
        Whether a task's weight may be negative.
    claim
        The client's examples and tasks.
    lengths
        Where the vectors' norms are taken.
    """

    entries: int
    heads: int
    restored: bool = True
    least_steps: int = 0
    most_steps: int | None = None
    rate: float = math.inf
    momentum: float = 1.0
    required: Sequence[str] = ()
    reportable: Callable[[tuple[int, ...]], Reportable] | None = None
    sketch: int | None = None
    signed: bool = True
    claim: Claim | None = None
    lengths: Lengths = field(default_factory=Lengths)


Form = Callable[[Any], bool]
Check = Callable[[Update, Expected], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A field of an update.

    Attributes
    ----------
    name, meaning
        The field.
    kind
        Its type, in words.
    shape, within, against
        Its shape, its range, and what it is checked against, in words.
    otherwise
        What happens to an update that breaks the rule.
    form
        Whether a value is of that type.
    check
        Why the value of an update whose fields all are of their types cannot be used, or None.
    default
        What stands for a value of a wrong type where such an update is recorded.
    """

    name: str
    meaning: str
    kind: str
    shape: str
    within: str
    against: str
    form: Form
    check: Check
    default: Any
    otherwise: str = "rejected"


def form_fault(update: Update) -> str | None:
    """The first field that is not of its type, or None."""
    for rule in CONTRACT:
        value = getattr(update, rule.name, None)
        if not rule.form(value):
            return f"{rule.name} is {shown(value)}, expected {rule.kind}"
    return None


def fault(update: Update, expected: Expected) -> str | None:
    """Why an update whose fields are of their types breaks the contract, or None."""
    for check in _CHECKS:
        if (found := check(update, expected)) is not None:
            return found
    return None


def recordable(update: Update) -> Update:
    """The update as it can be put on record: itself, or with defaults where fields are not of their types."""
    wrong = {rule.name: rule.default for rule in CONTRACT if not rule.form(getattr(update, rule.name, None))}
    return dataclasses.replace(update, **wrong) if wrong else update


def contract_table() -> str:
    """The contract as a table, in Markdown."""
    header = ("field", "meaning", "type", "shape", "range", "checked against", "otherwise")
    rows = [header, ("---",) * len(header)]
    for rule in CONTRACT:
        cells = (rule.meaning, rule.kind, rule.shape, rule.within, rule.against, rule.otherwise)
        rows.append((f"`{rule.name}`", *cells))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"


# Types. A bool is no whole number, nor is 2.0; numbers of NumPy are none either: an update is plain Python and tensors.


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < _COUNTS


def _number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -_COUNTS < value < _COUNTS)


def _numbers(value: Any) -> bool:
    return type(value) is tuple and (set(map(type, value)) <= _FLOATS or all(map(_number, value)))


def _wholes(value: Any) -> bool:
    if type(value) is not tuple or not set(map(type, value)) <= _INTS:
        return False
    return not value or (min(value) >= 0 and max(value) < _COUNTS)


def _vector(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"


def _table_of(form: Form) -> Form:
    def check(value: Any) -> bool:
        return isinstance(value, Mapping) and all(type(name) is str and form(entry) for name, entry in value.items())

    return check


def _text_or_none(value: Any) -> bool:
    return value is None or (type(value) is str and len(value) <= LONGEST_TEXT)


# Ranges, and what was asked for.


def _anything(update: Update, expected: Expected) -> None:
    return None


def _vector_fault(name: str, vector: Tensor, expected: Expected) -> str | None:
    if vector.dtype is not torch.float32 or vector.shape != (expected.entries,):
        found = f"{vector.dtype} of shape {tuple(vector.shape)}"
        return f"{shown(name)[1:-1]} is {found}, expected torch.float32 of shape ({expected.entries},)"
    # One pass: the square is not finite either if an entry is not.
    if expected.lengths.square(name, vector) <= LONGEST**2:
        return None
    return f"{name} is longer than {LONGEST:g}" if torch.isfinite(vector).all() else f"{name} is not finite"


def _delta(update: Update, expected: Expected) -> str | None:
    return _vector_fault("delta", update.delta, expected) if expected.restored else None


def _vectors(update: Update, expected: Expected) -> str | None:
    if missing := [name for name in expected.required if name not in update.vectors]:
        return f"lacks the vector {missing[0]!r}"
    if not update.vectors:
        return None
    allowed = None if expected.reportable is None else expected.reportable(update.tasks).vectors
    for name, vector in update.vectors.items():
        if allowed is not None and name not in allowed:
            return f"carries the vector {shown(name)}, which nobody asked for"
        if (found := _vector_fault(name, vector, expected)) is not None:
            return found
    return None


def _terms(update: Update, expected: Expected) -> str | None:
    if expected.reportable is None or not update.terms:
        return None
    allowed = expected.reportable(update.tasks).terms
    for name, value in update.terms.items():
        if name not in allowed:
            return f"carries the term {shown(name)}, which nobody asked for"
        least, largest = allowed[name]
        if not least <= value <= largest:
            return f"claims {name} = {value:g}, expected {least:g} to {largest:g}"
    return None


def _examples(update: Update, expected: Expected) -> str | None:
    if update.examples < 1:
        return f"trained {update.steps} steps on {update.examples} examples"
    claim = expected.claim
    if claim is not None and update.examples != claim.examples:
        return f"claims {update.examples} examples, has {claim.examples}"
    return None


def _steps(update: Update, expected: Expected) -> str | None:
    if update.steps < expected.least_steps:
        return f"trained {update.steps} steps on {update.examples} examples"
    if expected.most_steps is not None and update.steps > expected.most_steps:
        return f"claims {update.steps} steps, was asked for {expected.most_steps}"
    return None


def _tasks(update: Update, expected: Expected) -> str | None:
    owned, heads, claim = update.tasks, expected.heads, expected.claim
    if not owned or len(owned) > heads or len(set(owned)) < len(owned) or max(owned) >= heads:
        return f"claims the tasks {shown(owned)} of {heads}"
    return f"claims the tasks {owned}, owns {claim.tasks}" if claim is not None and owned != claim.tasks else None


def _per_task(name: str, least: Callable[[Expected], float]) -> Check:
    def check(update: Update, expected: Expected) -> str | None:
        values: tuple[float, ...] = getattr(update, name)
        if len(values) not in (0, len(update.tasks)):
            return f"{name} has {len(values)} numbers, expected {len(update.tasks)} or none"
        if not all(map(math.isfinite, values)):
            return f"{name} is not finite"
        low = least(expected)
        if not values or (low <= min(values) and max(values) <= LARGEST):
            return None
        wrong = next(value for value in values if not low <= value <= LARGEST)
        return f"{name} claims {wrong:g}, expected {low:g} to {LARGEST:g}"

    return check


def _sketches(update: Update, expected: Expected) -> str | None:
    sent, m = update.task_sketches, expected.sketch
    if sent is None:
        return None  # the task weights that need them say so
    if m == 0:
        return "carries sketches, which nobody asked for"
    rows = len(update.tasks)
    if sent.dtype is not torch.float32 or sent.ndim != 2 or len(sent) != rows or (m is not None and sent.shape[1] != m):
        width = "m" if m is None else m
        return (
            f"task_sketches is {sent.dtype} of shape {tuple(sent.shape)}, expected float32 of shape ({rows}, {width})"
        )
    return None if torch.isfinite(sent).all() else "task_sketches is not finite"


def _rate(update: Update, expected: Expected) -> str | None:
    value, most = update.learning_rate, expected.rate
    if math.isfinite(value) and 0.0 <= value <= most * (1 + _ROUNDING):
        return None
    return f"claims the learning rate {value}, expected 0 to {most:g}"


def _momentum(update: Update, expected: Expected) -> str | None:
    value, most = update.momentum, expected.momentum
    if 0.0 <= value <= most * (1 + _ROUNDING) and value < 1.0:
        return None
    return f"claims momentum {value}, expected 0 to {min(most, 1.0):g}"


def _arrival(update: Update, expected: Expected) -> str | None:
    sent, came = update.dispatched_at, update.arrived_at
    return None if sent <= came else f"arrived at {came} s, was sent at {sent} s"


_SERVER = "the server's own; what a message says of it is not read"

CONTRACT: tuple[Rule, ...] = (
    Rule(
        "client", "who sends it", "a whole number", "one", "0 to 2^53 - 1",
        "the order that it answers", _whole, _anything, -1,
    ),
    Rule(
        "job", "the client's job, counted from 0", "a whole number", "one", "0 to 2^53 - 1",
        "the order that it answers: each is answered once", _whole, _anything, -1,
    ),
    Rule(
        "base_version", "the version that it started from", "a whole number", "one", "0 to 2^53 - 1",
        "the order: the version that was sent", _whole, _anything, 0,
    ),
    Rule(
        "failure", "why the training failed", f"a text of at most {LONGEST_TEXT} characters, or None", "one", "",
        "", _text_or_none, _anything, None, "rejected with this reason, made printable; nothing else is looked at",
    ),
    Rule(
        "tasks", "indices of the tasks that the client owns", "a tuple of whole numbers", "at least one, each once",
        "below the number of tasks",
        "the model's heads; in a simulation the tasks that the client owns, of a real client those it said first",
        _wholes, _tasks, (),
    ),
    Rule(
        "delta", "`w_end - w_start`", "a dense tensor, float32", "[P], after it was restored if it was compressed",
        f"finite, L2 norm at most {LONGEST:g}", "the model's layout; the guard: whole, and each head",
        _vector, _delta, torch.empty(0),
    ),
    Rule(
        "vectors", "further flat vectors of the policy", "a table of dense tensors, float32", "[P] each",
        f"finite, L2 norm at most {LONGEST:g}",
        "the policy: those it needs are there, and none that it does not know; the guard: those that enter the model",
        _table_of(_vector), _vectors, {},
    ),
    Rule(
        "terms", "further numbers of the policy", "a table of numbers", "one each", "the policy's, for each term",
        "the policy, and what parts follow: none that nobody asked for", _table_of(_number), _terms, {},
    ),
    Rule(
        "examples", "training examples of the client's shard", "a whole number", "one", "from 1 on",
        "in a simulation the shard; of a real client what it said first, and 100 times the median of all clients'",
        _whole, _examples, 0,
    ),
    Rule(
        "steps", "local steps that ran", "a whole number", "one",
        "1 (0 where short batches are dropped) to what was asked for",
        "the order: its steps, or its epochs over the examples", _whole, _steps, 0,
    ),
    Rule(
        "task_losses", "each owned task's mean training loss", "a tuple of numbers", "one for each owned task, or none",
        "0 (no loss of FedMTL is negative) to 3.4e38, the largest of single precision", "`tasks`",
        _numbers, _per_task("task_losses", lambda expected: -_ROUNDING), (),
    ),
    Rule(
        "mean_task_weights", "the mean weight that the balancer gave each owned task", "a tuple of numbers",
        "one for each owned task, or none",
        f"0 to 3.4e38; from -{MOST_WEIGHT:g} on with balancers whose weights may be negative",
        "`tasks`, the balancer", _numbers,
        _per_task("mean_task_weights", lambda expected: -MOST_WEIGHT if expected.signed else -_ROUNDING), (),
    ),
    Rule(
        "task_traces", "each owned task's mean NTK statistic", "a tuple of numbers", "one for each owned task, or none",
        "-3.4e38 (de-noised ones may be negative) to 3.4e38", "`tasks`",
        _numbers, _per_task("task_traces", lambda expected: -LARGEST), (),
    ),
    Rule(
        "task_sketches", "a sketch of each owned task's mean gradient", "a dense tensor, float32, or None",
        "[owned tasks, m]", "finite", "`tasks`, and the balancing: none unless it asks for them",
        lambda value: value is None or _vector(value), _sketches, None,
    ),
    Rule(
        "learning_rate", "what the client trained with", "a number", "one", "0 to the largest that the policy allows",
        "the order's settings, the policy", _number, _rate, 0.0,
    ),
    Rule(
        "momentum", "what the client trained with", "a number", "one",
        "0 to the largest that the policy allows, below 1", "the order's settings, the policy", _number, _momentum, 0.0,
    ),
    Rule(
        "dispatched_at", "when the order was sent, seconds", "a number", "one", "at most `arrived_at`", _SERVER,
        _number, _arrival, 0.0,
    ),
    Rule("arrived_at", "when it came, seconds", "a number", "one", "", _SERVER, _number, _anything, 0.0),
    Rule(
        "bytes_up", "traffic of the job, bytes", "a whole number", "one", "from 0 on", _SERVER,
        _whole, _anything, 0,
    ),
    Rule(
        "bytes_down", "traffic of the job, bytes", "a whole number", "one", "from 0 on", _SERVER,
        _whole, _anything, 0,
    ),
    Rule(
        "arrived_version", "the server's version when it came", "a whole number", "one", "from 0 on", _SERVER,
        _whole, _anything, 0,
    ),
)  # fmt: skip
"""A rule for each field, in the order in which they are checked."""

_CHECKS = tuple(rule.check for rule in CONTRACT if rule.check is not _anything)

SERVER_SIDE = tuple(rule.name for rule in CONTRACT if rule.against == _SERVER)
"""The fields that do not travel."""
