"""Heads are averaged over their owners."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fedmtl.protocol import Update
from strategies.core.kinds import Step, Weighting

Combine = Callable[[slice, Sequence[Update], Sequence[float]], Tensor]
"""The next values of a slice of the vector, from some updates and their weights."""


def combine_by_owner(step: Step, weighting: Weighting, combine: Combine) -> tuple[Tensor, tuple[float, ...]]:
    """The next vector, each head from its owners alone.

    The backbone and the buffers are combined from all updates. A head is combined from the updates of the clients
    that own its task, with the weights that the rule gives when only these are there, so that a task with few owners
    learns as fast as the others; it stays as it is if no owner is among them. If everybody owns everything, the whole
    vector is combined at once.

    Returns
    -------
    vector, weights
        The next vector, shape [P], and the weight of each update in the backbone.
    """

    def weigh(updates: Sequence[Update]) -> tuple[float, ...]:
        return weighting.weights(updates, step.model.version, step.ledger)

    weighting.look(step)
    layout, weights = step.model.layout, weigh(step.updates)
    if all(len(update.tasks) == len(layout.heads) for update in step.updates):
        return combine(slice(0, layout.size), step.updates, weights), weights
    vector = step.model.vector.clone()
    for part in (layout.shared, layout.buffers):
        vector[part] = combine(part, step.updates, weights)
    for task, head in enumerate(layout.heads):
        if owners := [update for update in step.updates if task in update.tasks]:
            vector[head] = combine(head, owners, weigh(owners))
    return vector, weights
