"""Regression tasks on shared random features whose best losses are known in closed form.

Inputs are ``x ~ N(0, I)`` with as many entries as there are features m; the hidden features are ``phi_j(x) =
(relu(v_j . x) - 1/sqrt(2 pi)) / tau`` with ``v_1 ... v_m`` orthonormal and random and ``tau^2 = 1/2 - 1/(2 pi)``. So
features are independent with mean 0 and variance 1, and one hidden layer of m ReLUs holds them all. Task i of K is

    y_i = sigma_i (a_i . phi(x) + noise eps_i),     ||a_i|| = 1,     a_i . a_j = 1 - conflict K / (K - 1)

so with conflict 0 all tasks are the same function, with ``(K - 1) / K`` unrelated ones, and with 1 as opposed to each
other as K functions can be: they add to zero. The scales are geometric, ``sigma_K / sigma_1 = scale_spread``, with
mean logarithm 0.

Best mean squared errors of task i, alone or together: ``(sigma_i noise)^2`` for any function, and ``sigma_i^2 (1 -
1/(4 tau^2) + noise^2)`` for a linear one; that of a constant is ``sigma_i^2 (1 + noise^2)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from fedmtl.components import Param
from fedmtl.data.federated import Examples
from fedmtl.data.pool import Pool
from fedmtl.errors import ConfigError
from fedmtl.randomness import numpy_generator
from fedmtl.tasks import Task

_MEAN = 1 / math.sqrt(2 * math.pi)
_VARIANCE = 0.5 - 1 / (2 * math.pi)


@dataclass(frozen=True, eq=False)
class TaskFamily:
    """The functions behind the data.

    Attributes
    ----------
    directions
        v, orthonormal rows, shape [m, m].
    targets
        a, unit rows, shape [K, m].
    scales
        sigma, shape [K].
    noise
        Deviation of the noise, in deviations of a task's own signal.
    """

    directions: np.ndarray
    targets: np.ndarray
    scales: np.ndarray
    noise: float

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """phi, shape [n, m], of inputs of that shape."""
        return np.asarray((np.maximum(inputs @ self.directions.T, 0.0) - _MEAN) / math.sqrt(_VARIANCE))

    def signals(self, inputs: np.ndarray) -> np.ndarray:
        """The tasks' targets without noise, shape [n, K]."""
        return np.asarray(self.features(inputs) @ self.targets.T * self.scales)

    @property
    def best_losses(self) -> np.ndarray:
        """The mean squared error of the best function of each task, shape [K]: its noise."""
        return np.asarray((self.scales * self.noise) ** 2)

    @property
    def best_linear_losses(self) -> np.ndarray:
        """The mean squared error of the best linear function of each task, shape [K]."""
        return np.asarray(self.scales**2 * (1 - 1 / (4 * _VARIANCE) + self.noise**2))

    @property
    def constant_losses(self) -> np.ndarray:
        """The mean squared error of the best constant of each task, shape [K]."""
        return np.asarray(self.scales**2 * (1 + self.noise**2))


def task_family(
    seed: int, tasks: int, features: int, *, conflict: float, scale_spread: float, noise: float
) -> TaskFamily:
    """The functions that these options describe; the numbers mean what they mean in :func:`synthetic_tasks`."""
    rng = numpy_generator(seed, "synthetic tasks functions")
    directions, orthonormal = (np.linalg.qr(rng.standard_normal((features, features)))[0] for _ in range(2))
    b = orthonormal[:tasks]
    cosine = 1 - conflict * tasks / (tasks - 1) if tasks > 1 else 0.0
    own = math.sqrt(1 - cosine)
    # a_i = own b_i + common sum_j b_j has unit length and this cosine with every other; rounding may go below zero.
    common = (math.sqrt(max(0.0, own**2 + tasks * cosine)) - own) / tasks
    targets = own * b + common * b.sum(0)
    scales = scale_spread ** (np.linspace(-0.5, 0.5, tasks) if tasks > 1 else np.zeros(1))
    return TaskFamily(directions, targets, scales, noise)


def synthetic_tasks(
    seed: int,
    clients: int,
    *,
    tasks: Annotated[int, Param("tasks", ge=1, le=40, source="paper")] = 8,
    conflict: Annotated[
        float, Param("0: all tasks are the same function, 1: as opposed as they can be", ge=0, le=1)
    ] = 0.5,
    scale_spread: Annotated[float, Param("largest scale of a task's targets over the smallest", ge=1, le=1e6)] = 10.0,
    noise: Annotated[float, Param("noise of the targets, deviations of a task's signal", ge=0, le=100)] = 0.3,
    features: Annotated[int, Param("hidden random features, and entries of an input", ge=1, le=4096)] = 40,
    examples: Annotated[int, Param("training examples", ge=1)] = 4000,
    test_examples: Annotated[int, Param("test examples", ge=1)] = 2000,
) -> Pool:
    """Regressions on shared random features: best losses known, conflict and scales of the tasks to choose.

    Raises
    ------
    ConfigError
        If there are more tasks than features: they could not be distinguished.
    """
    if tasks > features:
        raise ConfigError(f"data.tasks = {tasks} needs at least as many features: set data.features to {tasks} or more")
    family = task_family(seed, tasks, features, conflict=conflict, scale_spread=scale_spread, noise=noise)
    parts = []
    for part, count in (("train", examples), ("test", test_examples)):
        rng = numpy_generator(seed, f"synthetic tasks {part}")
        inputs = rng.standard_normal((count, features))
        targets = family.signals(inputs) + family.scales * noise * rng.standard_normal((count, tasks))
        columns = torch.from_numpy(targets.astype(np.float32)).unbind(1)
        parts.append(
            Examples(torch.from_numpy(inputs.astype(np.float32)), tuple(column.contiguous() for column in columns))
        )
    names = [f"task-{number:02d}" for number in range(1, tasks + 1)]
    return Pool(tuple(Task(name, "regression") for name in names), parts[0], parts[1])
