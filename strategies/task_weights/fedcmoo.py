"""FedCMOO's weights: the server descends on the length of the common gradient, from compressed Jacobians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, Update
from strategies.core.kinds import Aggregator, ClientPolicy, Plain, TaskWeights
from strategies.policies.compressed_jacobian import CompressedJacobian, Rank

WeightRate = Annotated[float, Param("beta, step of the tasks' weights", gt=0)]
WeightSteps = Annotated[int, Param("steps of the tasks' weights for each server step", ge=1, source="authors' code")]


class FedCMOOWeights(TaskWeights):
    """FedCMOO: the server descends on the length of the tasks' common gradient, from compressed Jacobians.

    The weights are on the simplex, and follow the Gram matrix of the tasks' mean gradients. Each client c sends ``G_c ~
    C_c B_c`` (client half ``"compressed-jacobian"``). With the aggregation's weights a_c, over the owners of each task,

        g_i = sum_c a_c (C_c B_c)_i / sum_c a_c,    M = [<g_i, g_j>]
        w  <- proj_simplex(w - beta M w / mean_i(||g_i||)^2)       `weight_steps` times

    Parameters
    ----------
    rank
        r, vectors of a client's basis.
    weight_rate
        beta.
    weight_steps
        Steps of w for each server step.

    Examples
    --------
    The first task's gradient is twice as long as the second's, to which it is orthogonal; its weight falls.

    >>> import torch
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.task_weights.fedcmoo import FedCMOOWeights
    >>> model = toy_model([0.0, 0.0], heads=(0, 0))
    >>> task_weights = FedCMOOWeights(rank=2, weight_rate=0.1)
    >>> task_weights.prepare(model, seed=0)
    >>> basis = {"basis 0": torch.tensor([2.0, 0.0]), "basis 1": torch.tensor([0.0, 1.0])}
    >>> terms = {"coefficient 0 0": 1.0, "coefficient 1 1": 1.0}
    >>> task_weights.on_aggregated([toy_update(0, tasks=(0, 1), terms=terms, vectors=basis)], (1.0,), model.layout)
    >>> [round(weight, 3) for weight in task_weights.weights()]
    [0.467, 0.533]
    """

    def __init__(self, *, rank: Rank = 1, weight_rate: WeightRate = 0.1, weight_steps: WeightSteps = 1) -> None:
        self.rank = rank
        self.weight_rate = weight_rate
        self.weight_steps = weight_steps
        self._weights: tuple[float, ...] = ()

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start with equal weights."""
        tasks = len(model.layout.heads)
        self._weights = (1.0 / tasks,) * tasks

    def adjust(self, aggregator: Aggregator, policy: ClientPolicy) -> tuple[Aggregator, ClientPolicy]:
        """Have clients report their compressed gradients.

        Raises
        ------
        ConfigError
            If the clients have something else to do.
        """
        if isinstance(policy, CompressedJacobian) and policy.rank == self.rank:
            return aggregator, policy
        if type(policy) is not Plain:
            raise ConfigError(
                f"balancing.name = 'fedcmoo' with {type(policy).__name__}: clients report compressed gradients, and "
                "cannot follow that policy besides; choose a strategy with plain clients (fedavg, fedbuff)"
            )
        return aggregator, CompressedJacobian(rank=self.rank)

    def weights(self) -> tuple[float, ...]:
        """The weights, on the simplex."""
        return self._weights

    def on_aggregated(self, updates: Sequence[Update], weights: Sequence[float], layout: ParameterLayout) -> None:
        """Take the steps of w."""
        gradients = self._mean_gradients(updates, weights, layout)
        M = (gradients @ gradients.T).double()
        scale = M.diagonal().sqrt().mean().item() ** 2
        if not 0.0 < scale < math.inf:
            return
        w = torch.tensor(self._weights, dtype=torch.float64)
        for _ in range(self.weight_steps):
            w = on_simplex(w - self.weight_rate / scale * (M @ w))
        self._weights = tuple(w.tolist())

    def _mean_gradients(self, updates: Sequence[Update], weights: Sequence[float], layout: ParameterLayout) -> Tensor:
        """g_i of every task, shape [tasks, P]; zeros where no owner is among the updates."""
        tasks = len(self._weights)
        totals = [
            math.fsum(a for update, a in zip(updates, weights, strict=True) if task in update.tasks)
            for task in range(tasks)
        ]
        found = torch.zeros(tasks, layout.shared.stop - layout.shared.start)
        for update, a in zip(updates, weights, strict=True):
            basis = torch.stack([update.vectors[f"basis {j}"][layout.shared] for j in range(self.rank)])
            coefficients = torch.zeros(tasks, self.rank)
            for task in update.tasks:
                if totals[task] > 0.0:
                    row = [update.terms.get(f"coefficient {task} {j}", 0.0) for j in range(self.rank)]
                    coefficients[task] = torch.tensor(row) * (a / totals[task])
            found += coefficients @ basis
        return found

    def state_dict(self) -> dict[str, Any]:
        """The weight of each task."""
        return {"weights": list(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._weights = tuple(float(weight) for weight in state["weights"])


def on_simplex(w: Tensor) -> Tensor:
    """The nearest point with entries of at least 0 that sum to 1, shape [k].

    All positive entries are lowered by one number: the largest for which the sum of what is left reaches 1.
    """
    ordered = w.sort(descending=True).values
    lowered = (ordered.cumsum(0) - 1.0) / torch.arange(1, len(w) + 1, dtype=w.dtype)
    level = lowered[ordered > lowered][-1]
    return (w - level).clamp_min(0.0)
