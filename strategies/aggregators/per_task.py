"""Tasks' own changes of the backbone, weighed by the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedmtl.parameters import weighted_sum
from strategies.aggregators.gradient import GradientAggregator
from strategies.aggregators.min_norm import task_change
from strategies.core.kinds import Aggregator, Step, Weighting

Weigh = Callable[[Mapping[int, float]], tuple[float, ...]]
"""From ``||D_i||^2`` of the tasks at hand to the weights omega_i(t) of all tasks."""


class PerTaskAggregator(Aggregator):
    """Moves the backbone by each task's mean change, with weights that are chosen when the changes are known.

    A client c that was sent the weights omega_i(s) trained with them, each task apart, which gave the changes D_ci.
    Over the owners of each task that are among the updates,

        D_i    = sum_c p_ci D_ci / omega_i(s_c)                             as if it had been made with weight 1
        theta <- theta + eta_g sum_i omega_i(t) D_i                         so D_ci counts omega_i(t) / omega_i(s_c)

    Heads and buffers are averaged over their owners. The changes are those that the client half ``"tasks-apart"``
    sends.

    Parameters
    ----------
    weighting
        Gives the p_ci, from a task's owners alone.
    server_rate
        eta_g, the server's step.
    weigh
        Gives the omega_i(t).

    Examples
    --------
    The first task's change was made with weight 1, the second's with weight 2; now both are to count 1:

    >>> import torch
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators.per_task import PerTaskAggregator
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> second = {"task 1": torch.tensor([0.0, 4.0])}
    >>> update = toy_update(0, [1.0, 4.0], tasks=(0, 1), mean_task_weights=(1.0, 2.0), vectors=second)
    >>> aggregator = PerTaskAggregator(Uniform(), server_rate=1.0, weigh=lambda sizes: (1.0, 1.0))
    >>> aggregator.aggregate(Step.of(toy_model([0.0, 0.0], heads=(0, 0)), [update]))
    (tensor([1., 2.]), (1.0,))
    """

    no_rule = "it moves the backbone by a change for each task, not by a mean of updates"

    def __init__(self, weighting: Weighting, server_rate: float, weigh: Weigh) -> None:
        self.weighting = weighting
        self.server_rate = server_rate
        self.needs = {"exact-updates": "what the other tasks leave of an update is the first task's change"}
        self._weigh = weigh
        self._heads = GradientAggregator(weighting, server_rate=server_rate)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Move the backbone by all tasks' changes, and each head with its owners."""
        vector, weights = self._heads.aggregate(step)
        shared = step.model.layout.shared
        changes = {
            task: change
            for task in range(len(step.model.layout.heads))
            if (change := self._mean_change(step, task)) is not None
        }
        sizes = {task: _squared_norm(change) for task, change in changes.items()}
        omega = self._weigh(sizes)
        factors = [self.server_rate * omega[task] for task in changes]
        vector[shared] = weighted_sum(list(changes.values()), factors, step.model.vector[shared])
        return vector, weights

    def _mean_change(self, step: Step, task: int) -> Tensor | None:
        """D_i, shape of the backbone; None if no owner is among the updates."""
        owners = [update for update in step.updates if task in update.tasks]
        if not owners:
            return None
        shares = self.weighting.weights(owners, step.model.version, step.ledger)
        sent = [update.mean_task_weights[update.tasks.index(task)] for update in owners]
        changes = [task_change(update, task)[step.model.layout.shared] for update in owners]
        factors = [p / omega for p, omega in zip(shares, sent, strict=True)]
        return weighted_sum(changes, factors, torch.zeros_like(changes[0]))


def _squared_norm(vector: Tensor) -> float:
    """In float64, which no square of a float32 overflows."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64).item() ** 2)
