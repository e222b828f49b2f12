"""Balancers that look at every task's gradient with respect to the shared parameters: one backward pass for each."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.gradients import clipped, head_gradients
from fedmtl.balancing.network import Pullback, TaskNetwork
from fedmtl.balancing.options import HeadWeight
from fedmtl.balancing.passes import Passes
from fedmtl.balancing.several import SeveralTasks


class JacobianMethod(SeveralTasks):
    """Makes one direction of the tasks' gradients.

    A task whose loss or gradient is not finite is left out of the step: its row is zero and its weight is 0. The
    kernel size that is reported for a task is its squared gradient norm, the NTK's trace for one chunk.

    Parameters
    ----------
    head_weight, clip
        See :class:`fedmtl.balancing.equal.Equal`.
    times_tasks
        Whether the direction, and with it the weights, are multiplied by the number of tasks that have a part in it.

    Examples
    --------
    A method in which the tasks vote on the sign of every coordinate:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.jacobian_method import JacobianMethod
    >>> class SignVote(JacobianMethod):
    ...     def combine(self, rows, losses, sound, factors):
    ...         return (factors @ rows.sign()).sign(), factors * sound
    >>> balancer = SignVote(head_weight="unweighted", clip=0.0)
    >>> balance_gradients(balancer, [[1.0, 2.0], [0.1, -0.2], [-9.0, -0.2]]).shared[0]
    tensor([ 1., -1.])
    """

    def __init__(self, head_weight: HeadWeight, clip: float, times_tasks: bool = False) -> None:
        super().__init__(head_weight, clip)
        self.times_tasks = times_tasks

    @abstractmethod
    def combine(self, rows: Tensor, losses: Tensor, sound: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The shared gradient and the weight that each task had in it.

        Parameters
        ----------
        rows
            J: each task's gradient, shape [tasks, P]; zeros for a task that is left out.
        losses
            Shape [tasks], finite; 1 for a task that is left out.
        sound
            Which tasks are not left out, shape [tasks].
        factors
            The server's factors, shape [tasks].

        Returns
        -------
        direction, weights
            Shapes [P] and [tasks].
        """

    def balance_passes(self, calls: int, tasks: int) -> Passes:
        """A backward pass for each task."""
        return calls * Passes(forward=1, backward=tasks, heads=3)

    def balance(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step: one backward pass through the backbone for each task."""
        representation, pullback = network.represent(inputs)
        heads = network.head_pass(representation, targets)
        rows = jacobian(network, pullback, network.task_gradients(heads.slopes))
        sizes = rows.square().sum(1)
        sound = (sizes + heads.losses).isfinite()
        losses = heads.losses
        if not bool(sound.all()):
            rows = rows.masked_fill(~sound.unsqueeze(1), 0.0)
            losses = torch.where(sound, losses, 1.0)
        factors = torch.ones_like(losses) if task_weights is None else losses.new_tensor(task_weights)
        direction, weights = self.combine(rows, losses, sound, factors)
        if self.times_tasks:
            tasks = int(sound.sum())
            direction, weights = tasks * direction, tasks * weights
        shared = as_parameters(direction, network)
        own = head_gradients(network, heads.gradients, weights, self.head_weight)
        return StepGradients(clipped(shared, self.clip), own, heads.losses, weights, sizes)


def jacobian(network: TaskNetwork, pullback: Pullback, gradients: Tensor) -> Tensor:
    """J: the pullbacks of the tasks' gradients with respect to the representation, flat, shape [tasks, P]."""
    rows = gradients.new_empty(len(gradients), sum(parameter.numel() for parameter in network.shared))
    if network.shared:
        for row, gradient in zip(rows, gradients, strict=True):
            torch.cat([part.reshape(-1) for part in pullback(gradient)], out=row)
    return rows


def as_parameters(vector: Tensor, network: TaskNetwork) -> list[Tensor]:
    """A flat vector of shape [P] as a tensor for each parameter of the backbone."""
    stops = list(itertools.accumulate(parameter.numel() for parameter in network.shared))
    return [
        vector[stop - parameter.numel() : stop].view_as(parameter)
        for stop, parameter in zip(stops, network.shared, strict=True)
    ]
