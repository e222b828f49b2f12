"""The client's half of selections by loss (Oort, HeteRo-Select): clients that report theirs.

Down: the constant ``steps``, the number of first steps whose losses are reported; 0 for those of the first epoch. Up:
with l_k the mean over the owned tasks of the loss of step k, the terms ``loss_mean``, the mean of the l_k, and
``loss_rms``, the root of the mean of the l_k squared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe, Report
from fedmtl.protocol import TrainOrder, Update


class LossReportsHalf(ClientHalf):
    """Trains plainly, and reports its first losses."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """Train with the order's settings."""
        return Plan(order.settings)

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report:
        """Mean and root mean square of the losses."""
        steps = int(order.constants["steps"]) or math.ceil(update.examples / plan.settings.batch_size)
        first = torch.stack(list(losses[:steps])).mean(1)
        return Report({"loss_mean": first.mean().item(), "loss_rms": first.square().mean().sqrt().item()})

    def extra_bytes_up(self, order: TrainOrder) -> int:
        """Two terms, the losses' means."""
        return 8
