"""The client's half of FedCMOO: plain training, and the tasks' gradients at the model that was sent, compressed.

With the constant ``rank``, r, it sends the vectors ``basis j``, of which only the layout's shared part is not 0, and
for each owned task i the terms ``coefficient i j``, j from 0 to r - 1, so that ``grad l_i`` is about
``sum_j coefficient_ij basis_j`` (:mod:`clients.techniques.compressed_jacobian`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.policies.base import Adaptation, Observed, Plan, Probe, Report
from clients.techniques import CompressedJacobian
from fedmtl.protocol import TrainOrder, Update
from fedmtl.randomness import derive_seed


class CompressedJacobianAdaptation(Adaptation):
    """Trains plainly, and reports the compressed gradients."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, and gradients on a batch of their size."""
        seed = derive_seed(order.seed, "jacobian")
        technique = CompressedJacobian(order.constants["rank"], order.settings.batch_size, seed)
        return Plan(order.settings, technique=technique)

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report:
        """Basis and coefficients; the basis is filled up with zeros where the client owns fewer tasks than r."""
        assert isinstance(plan.technique, CompressedJacobian)
        rank, layout = order.constants["rank"], order.base.layout
        vectors = {f"basis {j}": torch.zeros(layout.size) for j in range(rank)}
        for j, row in enumerate(plan.technique.basis.cpu()):
            vectors[f"basis {j}"][layout.shared] = row
        rows = zip(update.tasks, plan.technique.coefficients.tolist(), strict=False)
        terms = {f"coefficient {task} {j}": value for task, row in rows for j, value in enumerate(row)}
        return Report(terms, vectors)

    def extra_bytes_up(self, order: TrainOrder) -> int:
        """The basis."""
        shared = order.base.layout.shared
        return int(4 * order.constants["rank"] * (shared.stop - shared.start))

    def task_bytes_up(self, order: TrainOrder, tasks: int) -> int:
        """The coefficients."""
        return int(4 * order.constants["rank"] * tasks)

    def work(self, order: TrainOrder, steps: int, examples: int) -> float:
        """The gradients count as a step."""
        return steps + 1
