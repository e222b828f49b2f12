"""The client's half of methods that correct each step by control variates (SCAFFOLD, FedAC).

Client i keeps a variate c_i, an estimate of its own gradient, which starts at 0; the server's own is c. With tau_i
local steps of size eta, from w to y:

    y <- y - eta (g_i(y) + c - c_i)                  each step
    c_i+ = c_i - c + (w - y) / (tau_i eta)           after the job

Down: c, as the vector ``variate``; absent for 0. Up: ``c_i+ - c_i``, as the vector ``variate_change``, shape [P]. It is
0 in the heads of tasks that the client does not own and in batch-norm statistics: no gradient was taken there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, ClientState, Observed, Plan, Probe, Report
from fedmtl.protocol import TrainOrder, Update


class ControlVariatesHalf(ClientHalf):
    """Corrects the client's steps by ``c - c_i``. The client keeps c_i, a vector."""

    def observe(self, order: TrainOrder, state: ClientState) -> Observed:
        """The client's variate, if it has one."""
        return {"variate": state["variate"]} if "variate" in state else {}

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, with the correction."""
        return Plan(order.settings, correction=_correction(order, observed))

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report:
        """The change of the client's variate."""
        change = update.delta * (-1.0 / (update.steps * plan.settings.learning_rate))
        if (variate := order.vectors.get("variate")) is not None:
            change -= variate.cpu()
        layout = order.base.layout
        change[layout.buffers] = 0.0
        for task, head in enumerate(layout.heads):
            if task not in update.tasks:
                change[head] = 0.0
        return Report(vectors={"variate_change": change})

    def extra_bytes_up(self, order: TrainOrder) -> int:
        """The change, a vector."""
        return 4 * order.base.layout.size

    def conclude(self, order: TrainOrder, update: Update, state: ClientState) -> None:
        """Change the variate; after a failure, or where the model went beyond all numbers, it stays."""
        change = update.vectors.get("variate_change")
        if update.failure is None and change is not None and torch.isfinite(change).all():
            own = state.get("variate")
            state["variate"] = change + own if isinstance(own, Tensor) else change


def _correction(order: TrainOrder, observed: Observed) -> Tensor | None:
    c, c_i = order.vectors.get("variate"), observed.get("variate")
    if not isinstance(c_i, Tensor):
        return c
    return -c_i if c is None else c - c_i
