"""The client's half of M-step FedAsync (KAFL): a client goes on from its own model until there is a newer global one.

A client that is sent the very version that it started its last job from goes on from where that job ended; its update
then holds both jobs' progress, ``w_i - w[t]``.

Down: nothing beside the settings. Up: nothing beside the update. The client keeps that model (a vector, from the upload
to the next order) and its version.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, ClientState, Observed, Plan, Probe
from fedmtl.protocol import TrainOrder, Update


class OwnModelHalf(ClientHalf):
    """Starts from the client's own model where the server has nothing newer."""

    def observe(self, order: TrainOrder, state: ClientState) -> Observed:
        """The client's own model, if it started from the version that is sent now."""
        model, version = state.pop("model", None), state.pop("version", None)
        return {"model": model} if model is not None and version == order.base.version else {}

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, from the client's own model if it was observed."""
        model = observed.get("model")
        return Plan(order.settings, start=model if isinstance(model, Tensor) else None)

    def conclude(self, order: TrainOrder, update: Update, state: ClientState) -> None:
        """Keep the model; after a failure, or beyond all numbers, the next job starts from the server's."""
        if update.failure is None and torch.isfinite(update.delta).all():
            state["model"] = order.base.vector + update.delta
            state["version"] = float(order.base.version)
