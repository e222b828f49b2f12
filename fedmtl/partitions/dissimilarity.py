"""How much clients' gradients differ at a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmtl.balancing.network import TaskNetwork
from fedmtl.data.federated import FederatedData
from fedmtl.hardware import usable_device
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.partitions.statistics import Undefined
from fedmtl.randomness import default_generators, derive_seed

ALL_TASKS = "all tasks"


@dataclass(frozen=True)
class Dissimilarity:
    """How much the gradients of several clients differ.

    Attributes
    ----------
    name
        Of the task, or `ALL_TASKS`.
    clients
        How many clients' gradients there were.
    norm
        ``||grad f||`` of the mean loss of all examples, ``f = sum_k p_k F_k`` with ``p_k = n_k / n``.
    b
        FedProx's B: ``sqrt(sum_k p_k ||grad F_k||^2) / ||grad f||``, 1 if all are the same ("Federated Optimization in
        Heterogeneous Networks", arXiv 1812.06127, definition 3).
    sigma
        FedBuff's bound sigma_g: ``sqrt(1/m sum_k ||grad F_k - 1/m sum_j grad F_j||^2)``, 0 if all are the same; every
        one of the m clients counts the same ("Federated Learning with Buffered Asynchronous Aggregation", arXiv
        2106.06639, assumption 3). In the unit of a gradient.
    """

    name: str
    clients: int
    norm: float | Undefined
    b: float | Undefined
    sigma: float | Undefined


class GradientSpread:
    """Sums over clients' gradients, in float64, from which their dissimilarity follows.

    Parameters
    ----------
    name
        What the gradients are of.
    parameters
        Their length.

    Examples
    --------
    Two clients of the same size whose gradients stand at a right angle:

    >>> import torch
    >>> from fedmtl.partitions.dissimilarity import GradientSpread
    >>> spread = GradientSpread("digit", 2)
    >>> spread.add(torch.tensor([1.0, 0.0]), examples=5)
    >>> spread.add(torch.tensor([0.0, 1.0]), examples=5)
    >>> found = spread.dissimilarity()
    >>> round(found.b, 3), round(found.sigma, 3)
    (1.414, 0.707)
    """

    def __init__(self, name: str, parameters: int) -> None:
        self._name = name
        self._clients = self._examples = 0
        self._mean = torch.zeros(parameters, dtype=torch.float64)
        self._deviations = 0.0
        self._weighted = torch.zeros(parameters, dtype=torch.float64)
        self._squares = 0.0

    def add(self, gradient: Tensor, examples: int) -> None:
        """Take in a client's gradient, shape [parameters], of its mean loss over so many examples."""
        g = gradient.to("cpu", torch.float64)
        self._clients += 1
        self._examples += examples
        # Welford's recurrence: the sum of squares less the square of the sum would cancel where all are alike.
        apart = g - self._mean
        self._mean += apart / self._clients
        self._deviations += float(apart @ (g - self._mean))
        self._weighted += examples * g
        self._squares += examples * float(g @ g)

    def dissimilarity(self) -> Dissimilarity:
        """What the gradients that were taken in amount to."""
        if not bool(self._weighted.isfinite().all()):
            none = Undefined("a gradient is not finite")
            return Dissimilarity(self._name, self._clients, none, none, none)
        norm = float(self._weighted.norm()) / self._examples
        mean_square = self._squares / self._examples
        b: float | Undefined = mean_square**0.5 / norm if norm > 0 else Undefined("the gradient of all is 0")
        sigma: float | Undefined = (max(self._deviations, 0.0) / self._clients) ** 0.5
        if self._clients == 1:
            b = sigma = Undefined("its one client has no other to be compared with")
        return Dissimilarity(self._name, self._clients, norm, b, sigma)


def gradient_dissimilarity(
    model: MultiTaskModel, data: FederatedData, *, batch_size: int, seed: int, device: str = "cpu"
) -> tuple[Dissimilarity, ...]:
    """The dissimilarity of the clients' gradients at a model: of each task, and of all tasks together.

    A client's F_k is its mean loss over all its training examples; of all tasks, the sum over those that it owns,
    without weights. The gradient is with respect to the backbone and the heads of these tasks. The model is in training
    mode, as when clients train: batch norm normalises by the batch, and dropout draws.

    Parameters
    ----------
    model
        The model; its statistics of batch norm may change.
    data
        The clients' examples.
    batch_size
        Examples of a batch; a client's are taken in order.
    seed
        Of whatever the model draws.
    device
        Where to compute.

    Raises
    ------
    ConfigError
        If this machine has no such device.
    """
    where = usable_device(device)
    network = TaskNetwork(model.to(where).train(), data.tasks)
    train = data.train.to(where)
    shared = sum(value.numel() for value in network.shared)
    heads = [sum(value.numel() for value in head) for head in network.heads]
    spreads = [GradientSpread(task.name, shared + head) for task, head in zip(data.tasks, heads, strict=True)]
    whole = GradientSpread(ALL_TASKS, shared + sum(heads))
    with default_generators(derive_seed(seed, "gradient dissimilarity"), where):
        for client in data.active:
            shard, owned = data.shards[client].to(where), data.tasks_of(client)
            gradients = _client_gradients(network, train.features, train.targets, shard, batch_size)
            total = torch.zeros(shared + sum(heads), dtype=torch.float64)
            for task in owned:
                backbone, head = (part.to("cpu", torch.float64) for part in gradients[task])
                spreads[task].add(torch.cat([backbone, head]), len(shard))
                total[:shared] += backbone
                start = shared + sum(heads[:task])
                total[start : start + heads[task]] += head
            whole.add(total, len(shard))
    return tuple(spread.dissimilarity() for spread in (*spreads, whole))


def _client_gradients(
    network: TaskNetwork, features: Tensor, targets: Sequence[Tensor], shard: Tensor, batch_size: int
) -> list[tuple[Tensor, Tensor]]:
    """For each task the gradients of a client's mean loss with respect to the backbone and to the task's head, flat."""
    sums: list[tuple[Tensor, Tensor]] = []
    for batch in torch.split(shard, batch_size):
        found = _batch_gradients(network, features[batch], [target[batch] for target in targets])
        weighted = [(backbone * len(batch), head * len(batch)) for backbone, head in found]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, weighted, strict=True)] if sums else list(weighted)
    return [(backbone / len(shard), head / len(shard)) for backbone, head in sums]


def _batch_gradients(
    network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    representation, pullback = network.represent(inputs)
    _, slopes = network.losses_and_slopes(representation, targets)
    heads = network.by_head(network.head_gradients(representation, slopes))
    for gradient, head in zip(network.task_gradients(slopes), heads, strict=True):
        backbone = [part.flatten() for part in pullback(gradient)]
        empty = gradient.new_empty(0)
        yield torch.cat([empty, *backbone]), torch.cat([part.flatten() for part in head])
