"""NTKMTL across clients, exactly: every task's own change of the backbone goes up, and the server weighs them.

An extra of FedNTK-trace (:mod:`strategies.task_weights.fedntk_trace`), which takes the place of its traces. Clients
train their tasks apart, as in FSMGDA (:mod:`clients.policies.tasks_apart`), each task's loss weighted for the
backbone with the omega_i(s) that was sent, s the version. The server pools what it got of each task
(:mod:`strategies.aggregators.per_task`) and takes NTKMTL's weights for one chunk ("NTKMTL: Mitigating Task Imbalance in
Multi-Task Learning from Neural Tangent Kernel Perspective", arXiv 2510.18258, equations 14 and 15), whose kernel size
is the squared norm:

    D_i      = sum_c p_ci D_ci / omega_i(s_c)               over the owners among the updates, of shape [P]
    lam_i    = ||D_i||^2                                    of the last server step that had an owner
    omega_i  = clip((mean_j lam_j / lam_i)^p, 1/w_max, w_max)           once every task was seen, else 1
    theta   += eta_g sum_i omega_i D_i

A change that was made with an old omega so counts with the new one, which is exact as far as a change is linear in its
weight: for one local step that is not clipped, and to first order in general. Coverage plays no part: each task's
change is a mean over its owners. With p = 0.5 and no clip all ``||omega_i D_i||`` of a step are equal.

A client with T tasks computes T times as much and uploads the backbone T times: ``4 P (T - 1)`` bytes more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmtl.balancing.weights import unbounded_weights
from fedmtl.errors import ConfigError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators.gradient import GradientAggregator
from strategies.aggregators.optimized import Optimized
from strategies.aggregators.per_task import PerTaskAggregator
from strategies.core.kinds import Aggregator, ClientPolicy, Plain, TaskWeights
from strategies.policies.tasks_apart import TasksApart
from strategies.task_weights.fedntk_trace import AddedToLambda, Exponent, LargestWeight


class PerTaskDeltas(TaskWeights):
    """NTKMTL's weights from the norms of the tasks' pooled changes.

    It changes the strategy that carries it: clients train tasks apart, and the aggregator weighs the tasks.

    Parameters
    ----------
    exponent
        p.
    w_max
        Bound of omega.
    eps
        Added to lam.

    Examples
    --------
    The tasks' pooled changes have the squared norms 4 and 1. With their weights both are as long:

    >>> from fedmtl.toy import toy_model
    >>> from strategies.task_weights import PerTaskDeltas
    >>> task_weights = PerTaskDeltas()
    >>> task_weights.prepare(toy_model([0.0, 0.0], heads=(0, 0)), seed=0)
    >>> omega = task_weights.weigh({0: 4.0, 1: 1.0})
    >>> [round(omega[0] * 2.0, 3), round(omega[1] * 1.0, 3)]
    [1.581, 1.581]
    """

    def __init__(self, *, exponent: Exponent = 0.5, w_max: LargestWeight = 50.0, eps: AddedToLambda = 1e-12) -> None:
        self.exponent = exponent
        self.w_max = w_max
        self.eps = eps
        self._sizes: list[float | None] = []
        self._omega: tuple[float, ...] = ()

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start with weights of 1."""
        self._sizes = [None] * len(model.layout.heads)
        self._omega = (1.0,) * len(self._sizes)

    @property
    def sizes(self) -> tuple[float | None, ...]:
        """lam_i; None for a task that was not seen."""
        return tuple(self._sizes)

    def weights(self) -> tuple[float, ...]:
        """The omega of every task."""
        return self._omega

    def weigh(self, sizes: Mapping[int, float]) -> tuple[float, ...]:
        """The omega of all tasks, from ``||D_i||^2`` of those that a server step has."""
        for task, size in sizes.items():
            self._sizes[task] = size
        seen = [size for size in self._sizes if size is not None]
        if len(seen) == len(self._sizes):
            omega = unbounded_weights(seen, self.exponent, self.eps)
            self._omega = tuple(min(max(weight, 1.0 / self.w_max), self.w_max) for weight in omega)
        return self._omega

    def adjust(self, aggregator: Aggregator, policy: ClientPolicy) -> tuple[Aggregator, ClientPolicy]:
        """Have clients train tasks apart, and the aggregator weigh the tasks.

        Raises
        ------
        ConfigError
            If the clients have something else to do, or the aggregator does not add changes.
        """
        if type(policy) is not Plain:
            raise ConfigError(
                f"balancing.extra = 'per_task_delta' with {type(policy).__name__}: clients train their tasks apart, "
                "and cannot follow that policy besides; choose a strategy with plain clients (fedbuff, fedsgd), or "
                "balancing.extra = 'none'"
            )
        return self._weighing(aggregator), TasksApart()

    def _weighing(self, aggregator: Aggregator) -> Aggregator:
        if type(aggregator) is GradientAggregator and aggregator.rule is None:
            return PerTaskAggregator(aggregator.weighting, aggregator.server_rate, self.weigh)
        if type(aggregator) is Optimized:
            return Optimized(self._weighing(aggregator.base), aggregator.optimizer, aggregator.rate)
        raise ConfigError(
            f"balancing.extra = 'per_task_delta' with {type(aggregator).__name__}: it has no place for a change of "
            "each task; choose a strategy that adds weighted updates to the model (fedbuff, fedsgd), or "
            "balancing.extra = 'none'"
        )

    def fault(self, update: Update, layout: ParameterLayout) -> str | None:
        """Why an update cannot be what was asked for, or None."""
        if len(update.mean_task_weights) != len(update.tasks):
            return f"carries {len(update.mean_task_weights)} weights of {len(update.tasks)} tasks"
        most = self.w_max * 1.000001  # a client may have rounded to single precision
        if not all(1.0 / most <= weight <= most for weight in update.mean_task_weights):
            return f"claims to have weighted its tasks with {update.mean_task_weights}"
        lacking = [task for task in update.tasks[1:] if f"task {task}" not in update.vectors]
        return f"lacks the change of task {lacking[0]}" if lacking else None

    def state_dict(self) -> dict[str, Any]:
        """The sizes and the omega."""
        return {"sizes": list(self._sizes), "omega": list(self._omega)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._sizes = [None if value is None else float(value) for value in state["sizes"]]
        self._omega = tuple(float(value) for value in state["omega"])
