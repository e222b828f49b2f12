"""What a balancer is: it turns the tasks' losses of one step into gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmtl.models.multitask import MultiTaskModel
from fedmtl.tasks import Task


class TaskNetwork:
    """A model seen from some of its tasks (those that one client owns).

    Attributes
    ----------
    shared
        Parameters of the backbone.
    heads
        For each of these tasks the parameters of its head.
    head_parameters
        The same parameters in one list.
    """

    def __init__(self, model: MultiTaskModel, tasks: Sequence[Task]) -> None:
        self.backbone = model.backbone
        self.tasks = tuple(tasks)
        self._head_modules = [model.heads[task.name] for task in tasks]
        self.shared = list(model.backbone.parameters())
        self.heads = [list(head.parameters()) for head in self._head_modules]
        self.head_parameters = [parameter for head in self.heads for parameter in head]

    def losses(self, representation: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        """Each task's mean loss (scalars).

        Parameters
        ----------
        representation
            The backbone's output, shape [batch, width].
        targets
            For each of these tasks its targets, shape [batch].
        """
        return self.losses_at([representation] * len(self.tasks), targets)

    def losses_at(self, representations: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
        """Each task's mean loss (scalars), where every task reads a representation of its own."""
        return [
            task.mean_loss(head(representation), target)
            for task, head, representation, target in zip(
                self.tasks, self._head_modules, representations, targets, strict=True
            )
        ]

    def by_head(self, gradients: Sequence[Tensor]) -> list[list[Tensor]]:
        """Gradients in the order of `head_parameters`, as a list for each head."""
        rest = iter(gradients)
        return [[next(rest) for _ in head] for head in self.heads]


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
    """

    shared: Sequence[Tensor]
    heads: Sequence[Sequence[Tensor]]
    losses: Tensor
    weights: Tensor | None = None
    statistics: Tensor | None = None


class Balancer(ABC):
    """Balances the tasks of a step. The options are the keyword-only parameters of the constructor."""

    def start_job(self, generator: torch.Generator) -> None:
        """A job begins: forget what was learned in the last; `generator` gives the job's random draws."""

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
