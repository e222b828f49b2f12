"""The client's half of methods that descend where the loss is higher (FedSpeed, DFedSAM).

Every step's gradient is taken at a perturbed point (:mod:`clients.techniques.perturbation`), with the constants
``rho`` and ``mix``. If the constant ``dual`` is set, the client also keeps FedSpeed's dual variable h_i, a vector that
starts at 0, and with the order's proximal factor lambda

    g = gradient + lambda (w - w_start) + lambda h_i    each step
    h_i <- h_i + (w_end - w_start)                      after the job

The drift is clipped together with the gradient; the dual, which is constant in a job, is added after that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clients.policies.base import Adaptation, ClientState, Observed, Plan, Probe
from clients.techniques import Perturbation
from fedmtl.protocol import TrainOrder, Update


class SharpnessAdaptation(Adaptation):
    """Two gradients a step, and with them, where asked, a dual variable that the client keeps."""

    def observe(self, order: TrainOrder, state: ClientState) -> Observed:
        """The dual variable, if the client has one."""
        return {"dual": state["dual"]} if "dual" in state else {}

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, the perturbation, and the dual as a correction."""
        dual = observed.get("dual")
        correction = order.settings.proximal * dual if isinstance(dual, Tensor) else None
        technique = Perturbation(order.constants["rho"], order.constants["mix"])
        return Plan(order.settings, correction=correction, technique=technique)

    def work(self, order: TrainOrder, steps: int, examples: int) -> float:
        """A second gradient doubles it."""
        return 2 * steps if order.constants["rho"] > 0 else steps

    def conclude(self, order: TrainOrder, update: Update, state: ClientState) -> None:
        """Move the dual variable; what the server cannot use must not move it, either."""
        if order.constants["dual"] and update.failure is None and torch.isfinite(update.delta).all():
            own = state.get("dual")
            state["dual"] = own + update.delta if isinstance(own, Tensor) else update.delta
