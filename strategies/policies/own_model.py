"""Clients that go on from their own models until there is a newer global one.

Down: nothing beside the settings. Up: nothing beside the update. The client's half is
:mod:`clients.policies.own_model`.
"""

from __future__ import annotations

from strategies.policies.local import LocalPolicy


class OwnModel(LocalPolicy):
    """A client goes on from its own model unless a newer global one exists (KAFL)."""

    name = "own-model"
