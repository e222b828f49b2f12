"""The client's half of selections by loss (Oort, HeteRo-Select): clients that report theirs.

What goes up besides the update are two terms over the job's first steps, with l_k the mean over the owned tasks of the
loss of step k: ``loss_mean``, the mean of the l_k, and ``loss_rms``, the root of the mean of the l_k squared. The
order's constant ``steps`` says how many steps; 0 for those of the first epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clients.policies.base import Adaptation, Observed, Plan, Probe, Report
from fedmtl.protocol import TrainOrder, Update


class LossesAdaptation(Adaptation):
    """Trains as told and reports its first losses."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings."""
        return Plan(order.settings)

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report:
        """Mean and root mean square of the losses."""
        steps = int(order.constants["steps"]) or math.ceil(update.examples / plan.settings.batch_size)
        first = torch.stack(list(losses[:steps])).mean(1)
        return Report({"loss_mean": first.mean().item(), "loss_rms": first.square().mean().sqrt().item()})

    def extra_bytes_up(self, order: TrainOrder) -> int:
        """Two terms."""
        return 8
