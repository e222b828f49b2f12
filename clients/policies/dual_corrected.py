"""The client's half of FedSpeed: perturbed gradients, and a dual variable that takes the client's drift out of them.

Every step's gradient is that of :mod:`clients.policies.sharpness_aware`. The client also keeps a dual variable h_i, a
vector that starts at 0, and with the order's proximal factor lambda

    g = gradient + lambda (w - w_start) + lambda h_i    each step
    h_i <- h_i + (w_end - w_start)                      after the job

The drift is clipped together with the gradient; the dual, which is constant in a job, is added after that.

Down: lambda, in the settings, and the constants ``rho`` and ``mix``. Up: nothing beside the update, whose sum over the
jobs is h_i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, ClientState, Observed, Plan, Probe
from clients.policies.sharpness_aware import SharpnessAware, perturbed_calls
from fedmtl.protocol import TrainOrder, Update


class DualCorrectedHalf(ClientHalf):
    """Takes two gradients a step, and corrects them by the dual variable. The client keeps h_i, a vector."""

    def observe(self, order: TrainOrder, state: ClientState) -> Observed:
        """The dual variable, if the client has one."""
        return {"dual": state["dual"]} if "dual" in state else {}

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, the perturbation, and the dual as a correction."""
        dual = observed.get("dual")
        correction = order.settings.proximal * dual if isinstance(dual, Tensor) else None
        perturbation = SharpnessAware(order.constants["rho"], order.constants["mix"])
        return Plan(order.settings, correction=correction, step_rule=perturbation)

    def gradient_calls(self, order: TrainOrder, steps: int) -> int:
        """Two for each step."""
        return perturbed_calls(order.constants["rho"], steps)

    def conclude(self, order: TrainOrder, update: Update, state: ClientState) -> None:
        """Move the dual variable; what the server cannot use must not move it, either."""
        if update.failure is None and torch.isfinite(update.delta).all():
            own = state.get("dual")
            state["dual"] = own + update.delta if isinstance(own, Tensor) else update.delta
