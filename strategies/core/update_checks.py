"""What an update is held against: what its order asked for, and what the strategy's parts know.

The rules are those of :data:`fedmtl.update_contract.CONTRACT`; here is what a strategy knows to check them with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fedmtl.balancing import BALANCERS
from fedmtl.protocol import GlobalModel, Update
from fedmtl.update_contract import Expected, Lengths, Range, Reportable, fault
from strategies.core.kinds import ClientPolicy, TaskWeights
from strategies.core.ledger import Ledger


class Asked(NamedTuple):
    """What an order asked for, as far as its answer is held against it.

    Attributes
    ----------
    job, version
        The client's job, and the version that it was sent.
    steps
        Local steps, or None for so many epochs.
    epochs, batch_size
        Of the order's settings.
    rate, momentum
        The largest that the client may train with.

    Examples
    --------
    How many local steps an update over 12 examples may come of:

    >>> from strategies.core.update_checks import Asked
    >>> Asked(job=0, version=3, steps=5).most_steps(12), Asked(0, 3, epochs=2, batch_size=5).most_steps(12)
    (5, 6)
    """

    job: int
    version: int
    steps: int | None = None
    epochs: int = 0
    batch_size: int = 1
    rate: float = math.inf
    momentum: float = 1.0

    def most_steps(self, examples: int) -> int:
        """A client may do less than it should, but not more."""
        return self.epochs * math.ceil(examples / self.batch_size) if self.steps is None else self.steps


def content_fault(
    update: Update,
    asked: Asked,
    model: GlobalModel,
    policy: ClientPolicy,
    task_weights: TaskWeights,
    ledger: Ledger,
    *,
    least_steps: int = 1,
    lengths: Lengths | None = None,
) -> str | None:
    """Why an update whose fields are of their types must not be applied, or None.

    Parameters
    ----------
    update
        It answers an order; its delta is restored if it was compressed.
    asked
        What the order asked for.
    model
        The newest model.
    policy, task_weights, ledger
        They know what may come up, and must.
    least_steps
        Local steps that it must come of.
    lengths
        Where the vectors' norms are left.
    """
    balancing = task_weights.balancing
    expected = Expected(
        entries=model.layout.size,
        heads=len(model.layout.heads),
        least_steps=least_steps,
        most_steps=asked.most_steps(update.examples) if asked.steps is not None or asked.epochs else None,
        rate=asked.rate,
        momentum=asked.momentum,
        required=policy.reported,
        reportable=lambda tasks: _reportable(policy, ledger, tasks),
        sketch=int(balancing.options.get("sketch", 0)),
        signed=getattr(BALANCERS.get(balancing.name), "signed", False),
        lengths=lengths or Lengths(),
    )
    return fault(update, expected) or policy.fault(update) or task_weights.fault(update, model.layout)


def is_finite(vector: Tensor) -> bool:
    """Whether every entry is; mostly in one pass that writes nothing.

    A sum is not finite if an entry is not. Only then, for it may have overflowed, are the entries looked at one by one,
    which takes twenty times as long.
    """
    return math.isfinite(vector.sum().item()) or bool(torch.isfinite(vector).all())


def _reportable(policy: ClientPolicy, ledger: Ledger, tasks: tuple[int, ...]) -> Reportable:
    """What the policy's clients may send, and what any part follows."""
    own = policy.reports(tasks)
    if not ledger.followed:
        return own
    followed: Mapping[str, Range] = {term: (0.0, ledger.reports(term).largest) for term in ledger.followed}
    return Reportable(own.vectors, {**followed, **own.terms})
