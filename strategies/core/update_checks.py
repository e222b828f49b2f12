"""What an update that came from outside must be like to be applied."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedmtl.protocol import GlobalModel, Update

_LONGEST = 1e15
"""An update's L2 norm beyond which it is of no use: sums and squares of such vectors would not be finite for long."""

_LARGEST = 1e100
"""A number's size beyond which it measures nothing: sums of such numbers overflow."""


class Asked(NamedTuple):
    """What an order asked for, as far as its answer is held against it.

    Attributes
    ----------
    job, version
        The client's job, and the version that it was sent.
    steps
        Local steps, or None for so many epochs.
    epochs, batch_size
        Of the order's settings; no epochs where they are not known (in states that were saved without).

    Examples
    --------
    Who claims to have done more than was asked for is not believed:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.update_checks import Asked
    >>> Asked(job=0, version=3, steps=5).fault(toy_update(steps=9))
    'claims 9 steps, was asked for 5'
    """

    job: int
    version: int
    steps: int | None = None
    epochs: int = 0
    batch_size: int = 1

    def fault(self, update: Update) -> str | None:
        """Why an update cannot be what was asked for, or None. A client may do less than it should, but not more."""
        if self.steps is None and not self.epochs:
            return None
        most = self.epochs * math.ceil(update.examples / self.batch_size) if self.steps is None else self.steps
        return f"claims {update.steps} steps, was asked for {most}" if update.steps > most else None


def content_fault(
    update: Update,
    model: GlobalModel,
    reported: Sequence[str],
    followed: Collection[str] = (),
    least_steps: int = 1,
) -> str | None:
    """Why an update's content cannot be of use, or None.

    Parameters
    ----------
    update
        It answers an order; its delta is restored if it was compressed.
    model
        The newest model.
    reported
        The vectors that the client must have sent beside the delta. These and all that it sent have shape [P].
    followed
        The terms that the ledger follows: it leaves out by itself what is not credible.
    least_steps
        Local steps that it must come of.
    """
    if missing := [name for name in reported if name not in update.vectors]:
        return f"lacks the vector {missing[0]!r}"
    for name, vector in {"delta": update.delta, **update.vectors}.items():
        if (fault := _vector_fault(name, vector, model.vector)) is not None:
            return fault
    if (fault := _number_fault(update, followed, least_steps)) is not None:
        return fault
    heads = len(model.layout.heads)
    if not update.tasks or len(set(update.tasks)) < len(update.tasks) or not set(update.tasks) <= set(range(heads)):
        return f"claims the tasks {update.tasks} of {heads}"
    return None


def is_finite(vector: Tensor) -> bool:
    """Whether every entry is; mostly in one pass that writes nothing.

    A sum is not finite if an entry is not. Only then, for it may have overflowed, are the entries looked at one by one,
    which takes twenty times as long.
    """
    return math.isfinite(vector.sum().item()) or bool(torch.isfinite(vector).all())


def _vector_fault(name: str, vector: Tensor, expected: Tensor) -> str | None:
    if vector.shape != expected.shape or vector.dtype != expected.dtype:
        return f"{name} is {_kind(vector)}, expected {_kind(expected)}"
    # One pass: the square is not finite either if an entry is not.
    if torch.dot(vector, vector).item() <= _LONGEST**2:
        return None
    return f"{name} is longer than {_LONGEST:g}" if torch.isfinite(vector).all() else f"{name} is not finite"


def _number_fault(update: Update, followed: Collection[str], least_steps: int) -> str | None:
    terms = [value for name, value in update.terms.items() if name not in followed]
    if not all(map(math.isfinite, terms)):
        return "a term is not finite"
    for number in itertools.chain(terms, update.task_losses, update.task_traces):
        if _LARGEST < abs(number) < math.inf:
            return f"claims to have measured {number:g}"
    if update.examples < 1 or update.steps < least_steps:
        return f"trained {update.steps} steps on {update.examples} examples"
    if not 0.0 <= update.momentum < 1.0 or not 0.0 <= update.learning_rate < math.inf:
        return f"claims momentum {update.momentum} and learning rate {update.learning_rate}"
    return None


def _kind(vector: Tensor) -> str:
    return f"{vector.dtype} of shape {tuple(vector.shape)}"
