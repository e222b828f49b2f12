"""The client's half of FSMGDA: each task is trained apart, and its change of the backbone sent up by itself.

The update's delta holds the sum of the tasks' changes ``D_i`` of the backbone, and each head's own change. For every
owned task but the first the vector ``task i`` holds ``D_i`` in the layout's shared part, and zeros elsewhere; the
first task's change is what is left of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.policies.base import Adaptation, Observed, Plan, Probe, Report
from clients.techniques import TasksApart
from fedmtl.protocol import TrainOrder, Update


class TasksApartAdaptation(Adaptation):
    """Trains the tasks apart."""

    apart = True

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, for each task."""
        return Plan(order.settings, technique=TasksApart(order.settings))

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report:
        """The changes of all owned tasks but the first."""
        assert isinstance(plan.technique, TasksApart)
        vectors = {}
        for task, change in list(zip(update.tasks, plan.technique.changes, strict=False))[1:]:
            vectors[f"task {task}"] = torch.zeros(order.base.layout.size)
            vectors[f"task {task}"][order.base.layout.shared] = change.cpu()
        return Report(vectors=vectors)

    def task_bytes_up(self, order: TrainOrder, tasks: int) -> int:
        """The backbone once more for each task but the first."""
        shared = order.base.layout.shared
        return int(4 * (shared.stop - shared.start) * (tasks - 1))
