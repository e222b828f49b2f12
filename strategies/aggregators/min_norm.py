"""The shortest common direction of all tasks' changes."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from fedmtl.balancing.least_norm import least_norm_weights
from fedmtl.parameters import weighted_sum
from fedmtl.protocol import Update
from strategies.aggregators.gradient import GradientAggregator, ServerRate
from strategies.core.kinds import Aggregator, Step, Weighting


class MinNormAggregator(Aggregator):
    """The backbone moves along the shortest common direction of all tasks' changes (FSMGDA).

    That is the point of least norm in the convex hull of the tasks' mean changes: with task i's mean change over its
    owners ``D_i = sum_c p_ci D_ci``, for the tasks that have an owner among the updates,

        lam = argmin over the simplex of ||sum_i lam_i D_i||^2,    theta <- theta + eta_g sum_i lam_i D_i

    Heads and buffers are averaged over their owners. The clients' changes are those that the client half
    ``"tasks-apart"`` sends.

    Parameters
    ----------
    weighting
        Gives the p_ci, from a task's owners alone.
    server_rate
        eta_g, the server's step.

    Examples
    --------
    Two tasks in conflict: the first has moved the backbone by ``(1, 0)``, the second by ``(-1, 1)``. The step
    serves both alike.

    >>> import torch
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators.min_norm import MinNormAggregator
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> second = {"task 1": torch.tensor([-1.0, 1.0])}
    >>> step = Step.of(toy_model([0.0, 0.0], heads=(0, 0)), [toy_update(0, [0.0, 1.0], tasks=(0, 1), vectors=second)])
    >>> vector, weights = MinNormAggregator(Uniform()).aggregate(step)
    >>> vector, torch.tensor([[1.0, 0.0], [-1.0, 1.0]]) @ vector
    (tensor([0.2000, 0.4000]), tensor([0.2000, 0.2000]))
    """

    needs = MappingProxyType(
        {
            "task-changes": "tasks have no changes of their own then; take strategy.policy = 'tasks-apart'",
            "exact-updates": "what the other tasks leave of an update is the first task's change",
        }
    )

    no_rule = "it moves the backbone in a direction common to the tasks, not by a mean of updates"

    def __init__(self, weighting: Weighting, *, server_rate: ServerRate = 1.0) -> None:
        self.weighting = weighting
        self.server_rate = server_rate
        self._heads = GradientAggregator(weighting, server_rate=server_rate)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Move the backbone along the common direction, and each head with its owners."""
        vector, weights = self._heads.aggregate(step)
        layout = step.model.layout
        means = []
        for task in range(len(layout.heads)):
            if owners := [update for update in step.updates if task in update.tasks]:
                shares = self.weighting.weights(owners, step.model.version, step.ledger)
                changes = [task_change(update, task)[layout.shared] for update in owners]
                means.append(weighted_sum(changes, shares, torch.zeros_like(changes[0])))
        rows = torch.stack(means)
        lam = least_norm_weights((rows @ rows.T).double().cpu())
        moved = lam.to(rows) @ rows
        vector[layout.shared] = step.model.vector[layout.shared] + self.server_rate * moved
        return vector, weights


def task_change(update: Update, task: int) -> Tensor:
    """A task's own change of the backbone, as a flat vector, shape [P]; only its shared part has a meaning.

    An owned task of which the client sent no vector has not changed the backbone; the first one has by what is left.
    """
    if task == update.tasks[0]:
        others = [update.vectors[name] for other in update.tasks[1:] if (name := f"task {other}") in update.vectors]
        return weighted_sum(others, [-1.0] * len(others), update.delta)
    sent = update.vectors.get(f"task {task}")
    return torch.zeros_like(update.delta) if sent is None else sent
