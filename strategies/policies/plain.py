"""Everybody is told the same."""

from __future__ import annotations

from strategies.core.kinds import ClientPolicy


class Plain(ClientPolicy):
    """Clients train with the run's settings."""
