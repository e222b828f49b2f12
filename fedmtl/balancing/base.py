"""What a balancer is: it turns the tasks' losses of one step into gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.passes import PLAIN, Passes


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
    kernel_sizes
        The size of each task's kernel, shape [tasks]; None if none was measured.
    sketches
        A sketch of each task's gradient, shape [tasks, m]; None if none was made.

    Examples
    --------
    NTKMTL on two tasks whose gradients have the squared norms 100 and 1; the shared gradient is the weighted sum.

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.ntkmtl import NTKMTL
    >>> step = balance_gradients(NTKMTL(), gradients=[[10.0, 0.0], [0.0, 1.0]], losses=[0.5, 2.0])
    >>> step.losses, step.kernel_sizes
    (tensor([0.5000, 2.0000]), tensor([100.,   1.]))
    >>> step.weights, step.shared[0]
    (tensor([0.7106, 7.1063]), tensor([7.1063, 7.1063]))
    """

    shared: Sequence[Tensor]
    heads: Sequence[Sequence[Tensor]]
    losses: Tensor
    weights: Tensor | None = None
    kernel_sizes: Tensor | None = None
    sketches: Tensor | None = None


class Balancer(ABC):
    """Balances the tasks of a step. The options are the keyword-only parameters of the constructor.

    Attributes
    ----------
    reports
        Whether the server needs the kernel sizes, so that sending them up is part of the traffic.
    signed
        Whether a task's weight may be negative.
    least_batch
        Examples that a batch must have for the method to be what it claims to be; only an epoch's last may have fewer.

    Examples
    --------
    The smallest balancer: the backbone serves the task with the greatest loss alone, and each head its own task.

    >>> from fedmtl.balancing import Balancer, StepGradients, balance_gradients
    >>> class WorstTask(Balancer):
    ...     def gradients(self, network, inputs, targets, task_weights):
    ...         representation, pullback = network.represent(inputs)
    ...         heads = network.head_pass(representation, targets)
    ...         shared = pullback(network.task_gradients(heads.slopes)[heads.losses.argmax()])
    ...         return StepGradients(shared, network.by_head(heads.gradients), heads.losses)
    >>> balance_gradients(WorstTask(), gradients=[[1.0, 0.0], [0.0, 2.0]], losses=[0.3, 0.7]).shared[0]
    tensor([0., 2.])
    """

    reports: bool = False
    signed: bool = False
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

    def passes(self, calls: int, tasks: int, batches: int) -> Passes:
        """What a job computes for its gradients: what a simulation's clock charges.

        Whoever passes more than once over a batch says so here; the default is a plain step for each call.

        Parameters
        ----------
        calls
            How often `gradients` is called in the job.
        tasks
            How many tasks the client owns.
        batches
            How many batches all the examples are that `prepare` is given.
        """
        return calls * PLAIN

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
