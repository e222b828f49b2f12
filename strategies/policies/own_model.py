"""Clients go on from their own models until there is a newer global one."""

from __future__ import annotations

from strategies.core.kinds import ClientPolicy


class OwnModel(ClientPolicy):
    """M-step FedAsync's choice of the starting point; the client's half is :mod:`clients.policies.own_model`."""

    name = "own-model"
