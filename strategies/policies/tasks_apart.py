"""Clients that train their tasks apart.

Down: nothing beside the settings. Up: a vector ``task i`` for every owned task but the first. The client's half is
:mod:`clients.policies.tasks_apart`.
"""

from __future__ import annotations

from fedmtl.update_contract import Reportable
from strategies.policies.local import LocalPolicy


class TasksApart(LocalPolicy):
    """Clients train their tasks apart, and send a change of the backbone for each (FSMGDA).

    Examples
    --------
    An aggregator that weighs the tasks' changes needs clients that send them:

    >>> from strategies.aggregators.min_norm import MinNormAggregator
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.policies.tasks_apart import TasksApart
    >>> from strategies.schedulers import Synchronous
    >>> from strategies.weightings import Uniform
    >>> Strategy(Synchronous(), MinNormAggregator(Uniform()), TasksApart()).policy.name
    'tasks-apart'
    >>> Strategy(Synchronous(), MinNormAggregator(Uniform()))
    Traceback (most recent call last):
        ...
    fedmtl.errors.ConfigError: MinNormAggregator with Synchronous x Uniform x GradientAggregator x Plain x ...
    """

    name = "tasks-apart"
    provides = frozenset({"task-changes"})

    def reports(self, tasks: tuple[int, ...]) -> Reportable:
        """A change for each owned task but the first, whose change is the update itself."""
        return Reportable({f"task {task}": True for task in tasks[1:]})
