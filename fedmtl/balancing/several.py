"""Balancers that have something to do only where there are two tasks or more."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.equal import Equal
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.options import HeadWeight
from fedmtl.balancing.passes import PLAIN, Passes


class SeveralTasks(Balancer):
    """Balances two tasks or more. A client that owns a single task descends its loss as it is, with weight 1.

    Parameters
    ----------
    head_weight, clip
        See :class:`fedmtl.balancing.equal.Equal`.

    Examples
    --------
    UW begins with weights of 1/2, but not where a client owns a single task:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.uw import UW
    >>> balance_gradients(UW(), [[3.0, 4.0], [1.0, 0.0]]).weights
    tensor([0.5000, 0.5000])
    >>> balance_gradients(UW(), [[3.0, 4.0]]).shared[0]
    tensor([3., 4.])
    """

    def __init__(self, head_weight: HeadWeight, clip: float) -> None:
        self.head_weight = head_weight
        self.clip = clip

    def gradients(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """The gradients of one step, by the method if there are several tasks."""
        if len(network.tasks) == 1:
            return Equal(head_weight=self.head_weight, clip=self.clip).gradients(network, inputs, targets, task_weights)
        return self.balance(network, inputs, targets, task_weights)

    def passes(self, calls: int, tasks: int, batches: int) -> Passes:
        """Plain steps where there is a single task."""
        return calls * PLAIN if tasks == 1 else self.balance_passes(calls, tasks)

    def balance_passes(self, calls: int, tasks: int) -> Passes:
        """What `passes` says where there are two tasks or more, for so many calls of `balance`."""
        return calls * PLAIN

    @abstractmethod
    def balance(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """What `gradients` does where there are two tasks or more."""
