"""What a balancer is: it turns the tasks' losses of one step into gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmtl.balancing.network import TaskNetwork


@dataclass(slots=True)
class StepGradients:
    """What a balancer made of one step.

    Attributes
    ----------
    shared
        A gradient for each parameter of the backbone.
    heads
        For each task, a gradient for each parameter of its head.
    losses
        Each task's mean loss, detached, shape [tasks].
    weights
        The weight each task had in the shared gradient, shape [tasks]; None for ones.
    statistics
        The NTK statistic measured for each task, shape [tasks]; None if none was.
    sketches
        A sketch of each task's gradient, shape [tasks, m]; None if none was made.
    """

    shared: Sequence[Tensor]
    heads: Sequence[Sequence[Tensor]]
    losses: Tensor
    weights: Tensor | None = None
    statistics: Tensor | None = None
    sketches: Tensor | None = None


class Balancer(ABC):
    """Balances the tasks of a step. The options are the keyword-only parameters of the constructor.

    Attributes
    ----------
    reports
        Whether the server needs the statistics, so that sending them up is part of the traffic.
    least_batch
        Examples that a batch must have for the method to be what it claims to be; only an epoch's last may have fewer.
    """

    reports: bool = False
    least_batch: int = 1

    def start_job(self, generator: torch.Generator) -> None:
        """A job begins: forget what was learned in the last; `generator` gives the job's random draws."""

    def prepare(self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> None:
        """Before the first step of a job, at the model that was sent; may move the network's heads.

        Parameters
        ----------
        network
            The model, seen from the client's tasks.
        inputs
            All examples that the job trains on, shape [n, ...].
        targets
            For each task its targets, shape [n].
        """

    @abstractmethod
    def gradients(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step.

        Parameters
        ----------
        network
            The model, seen from the client's tasks.
        inputs
            A batch, shape [batch, ...].
        targets
            For each task its targets, shape [batch].
        task_weights
            The server's factor for each task in the shared gradient; None for ones.
        """
