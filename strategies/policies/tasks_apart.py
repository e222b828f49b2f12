"""Clients that train their tasks apart.

Down: nothing beside the settings. Up: a vector ``task i`` for every owned task but the first. The client's half is
:mod:`clients.policies.tasks_apart`.
"""

from __future__ import annotations

from strategies.policies.local import LocalPolicy


class TasksApart(LocalPolicy):
    """Clients train their tasks apart, and send a change of the backbone for each (FSMGDA)."""

    name = "tasks-apart"
    provides = frozenset({"task-changes"})
