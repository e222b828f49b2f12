"""How good a model is: each task's metric and loss on the server's test set and on the clients' held-out examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedmtl.data.federated import Examples, FederatedData
from fedmtl.models.multitask import MultiTaskModel, judging
from fedmtl.models.own_state import OwnState
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel
from fedmtl.randomness import default_generators, derive_seed
from fedmtl.tasks import Task

WORST_SHARE = 0.1
"""The group "worst" is this share of the clients: for each task, those with the worst metric."""


class EvaluationRow(NamedTuple):
    """One row of the table `evaluations`; `metric` is the task's metric or ``"loss"``."""

    version: int
    time: float
    task: str
    metric: str
    value: float
    group: str


def evaluate(
    model: MultiTaskModel, tasks: Sequence[Task], examples: Examples, batch_size: int = 1000
) -> dict[str, float]:
    """Each task's metric on these examples, by the name of the task.

    Raises
    ------
    ValueError
        If there are no examples.
    """
    with default_generators(derive_seed(0, "evaluation"), examples.features.device):
        scores = _score(model, tasks, examples, batch_size)
    return {task.name: value for task, (value, _) in zip(tasks, scores, strict=True)}


class Evaluator:
    """Evaluates versions of the global model on one module that is used again and again.

    The groups are ``"test"``, the server's test set, and over the examples that the clients hold out ``"clients"``, all
    of them, ``"fast"`` and ``"slow"``, the faster and the slower half, and ``"worst"``, the tenth of the clients that
    the model serves worst. A client counts in a task only if it owns it and holds out examples; groups without clients
    have no rows.

    Parameters
    ----------
    model
        The module, on the device that is to be used; its values are overwritten.
    data
        Test set, held-out examples and owners of tasks.
    seconds
        Seconds that each client's device takes for the same work, shape [clients]; None where unknown. With equal
        devices or None there is no fast and no slow half.
    batch_size
        Examples per forward pass.
    seed
        The run's seed, for models that draw in prediction, too.
    client_losses
        Whether to take the clients' losses as well.

    Attributes
    ----------
    client_losses
        Of the version that was evaluated last: each task's mean loss on each client's held-out examples, shape
        [clients, tasks], not a number where a client does not own the task or holds out nothing. None unless asked for.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        data: FederatedData,
        seconds: np.ndarray | None = None,
        batch_size: int = 1000,
        seed: int = 0,
        *,
        client_losses: bool = False,
    ) -> None:
        self.tasks = data.tasks
        self._model = model
        self._own = OwnState(model, ParameterLayout.of(model))
        self._seed = seed
        self._data = data
        self._batch_size = batch_size
        self._device = next(model.parameters()).device
        self._test = data.test.to(self._device)
        self._counts = data.validation.sizes[:, None] * data.owners
        self._halves = halves(seconds, data.validation.sizes > 0)
        self.client_losses = np.full(self._counts.shape, np.nan) if client_losses else None

    def evaluate(self, model: GlobalModel, time: float) -> list[EvaluationRow]:
        """The rows of one version; `time` is what the fleet's clock says."""
        with default_generators(derive_seed(self._seed, "evaluation", model.version), self._device):
            return self._evaluate(model, time)

    def _evaluate(self, model: GlobalModel, time: float) -> list[EvaluationRow]:
        self._take(model.vector, model.layout)
        rows = []
        for task, (value, loss) in zip(
            self.tasks, _score(self._model, self.tasks, self._test, self._batch_size), strict=True
        ):
            rows.append(EvaluationRow(model.version, time, task.name, task.metric, value, "test"))
            rows.append(EvaluationRow(model.version, time, task.name, "loss", loss, "test"))
        if self._counts.any():
            for group, index, value in self._client_groups():
                task = self.tasks[index]
                rows.append(EvaluationRow(model.version, time, task.name, task.metric, value, group))
        return rows

    def evaluate_nodes(self, model: GlobalModel, vectors: Sequence[Tensor], time: float) -> list[EvaluationRow]:
        """The rows of a version in which clients have models of their own: how good these are on the test set.

        The group ``"nodes"`` is the mean of their metrics, ``"worst node"`` the worst of them, for each task.

        Parameters
        ----------
        model
            The version.
        vectors
            The clients' models, of its layout.
        time
            What the fleet's clock says.
        """
        values = []
        with default_generators(derive_seed(self._seed, "evaluation of nodes", model.version), self._device):
            for vector in vectors:
                self._take(vector, model.layout)
                values.append([value for value, _ in _score(self._model, self.tasks, self._test, self._batch_size)])
        rows = []
        for task, column in zip(self.tasks, np.array(values).T, strict=True):
            worst = column.min() if task.higher_is_better else column.max()
            for group, value in (("nodes", column.mean()), ("worst node", worst)):
                rows.append(EvaluationRow(model.version, time, task.name, task.metric, float(value), group))
        return rows

    def _take(self, vector: Tensor, layout: ParameterLayout) -> None:
        """Have the module hold these values; what it does to its buffers in prediction must not change them."""
        self._own.begin()
        here = vector.to(self._device)
        layout.bind(self._model, here.clone() if layout.buffers.stop > layout.buffers.start else here)

    def _client_groups(self) -> Iterator[tuple[str, int, float]]:
        """(group, task, metric) over the held-out examples."""
        sums = self._client_sums()
        for index, task in enumerate(self.tasks):
            total, count = sums[:, index], self._counts[:, index]
            if size := count.sum():
                yield "clients", index, float(total.sum() / size)
            for group, members in self._halves.items():
                if size := count[members].sum():
                    yield group, index, float(total[members].sum() / size)
            judged = count > 0
            if judged.any():
                means = np.sort(total[judged] / count[judged])
                worst = max(1, round(WORST_SHARE * means.size))
                yield "worst", index, float((means[:worst] if task.higher_is_better else means[-worst:]).mean())

    def _client_sums(self) -> np.ndarray:
        """Sum of each task's metric over each client's held-out examples, shape [clients, tasks]; 0 where not owned."""
        shards, pool = self._data.validation, self._data.train
        clients = np.repeat(np.arange(len(shards)), shards.sizes)
        scores = np.empty((len(self.tasks), len(clients)))
        losses = None if self.client_losses is None else np.empty_like(scores)
        with judging(self._model):
            for first in range(0, len(clients), self._batch_size):
                batch = pool.take(shards.indices[first : first + self._batch_size]).to(self._device)
                outputs = self._model(batch.features)
                here = slice(first, first + len(batch))
                for index, (task, output, target) in enumerate(zip(self.tasks, outputs, batch.targets, strict=True)):
                    scores[index, here] = task.scores(output, target).cpu().numpy()
                    if losses is not None:
                        losses[index, here] = task.example_losses(output, target).cpu().numpy()
        if losses is not None:
            judged = self._counts > 0
            sums = _sums(losses, clients, len(shards))
            self.client_losses = np.divide(sums, self._counts, out=np.full(judged.shape, np.nan), where=judged)
        return np.where(self._data.owners, _sums(scores, clients, len(shards)), 0.0)


def _score(
    model: MultiTaskModel, tasks: Sequence[Task], examples: Examples, batch_size: int
) -> list[tuple[float, float]]:
    """Mean metric and mean loss of each task."""
    if not len(examples):
        raise ValueError("there are no examples to evaluate on")
    sums = torch.zeros(len(tasks), 2, dtype=torch.float64, device=examples.features.device)
    with judging(model):
        for first in range(0, len(examples), batch_size):
            part = slice(first, first + batch_size)
            outputs = model(examples.features[part])
            for row, task, output, target in zip(sums, tasks, outputs, examples.targets, strict=True):
                row[0] += task.score_sum(output, target[part])
                row[1] += task.mean_loss(output, target[part]) * len(output)
    return [(value, loss) for value, loss in (sums / len(examples)).tolist()]


def _sums(values: np.ndarray, clients: np.ndarray, count: int) -> np.ndarray:
    """Sum of each row's values over each client's examples, shape [clients, rows]."""
    return np.stack([np.bincount(clients, row, minlength=count) for row in values], axis=1)


def halves(seconds: np.ndarray | None, among: np.ndarray) -> dict[str, np.ndarray]:
    """The faster and the slower half of some clients, "fast" and "slow"; with equal devices there are no halves.

    An odd one out is slow; among equally fast clients the lower number counts as faster.

    Parameters
    ----------
    seconds
        What each client's device takes for the same work, shape [clients]; None where unknown.
    among
        Whether a client is one of them, shape [clients].
    """
    if seconds is None or np.ptp(seconds) == 0:
        return {}
    order = np.argsort(seconds, kind="stable")
    order = order[among[order]]
    return {"fast": order[: order.size // 2], "slow": order[order.size // 2 :]}
