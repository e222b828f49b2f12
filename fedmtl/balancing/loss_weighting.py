"""Balancers that weigh the tasks by their losses alone: one pass, as with equal weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.gradients import clipped, head_gradients, weighted_gradient
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.several import SeveralTasks


class LossWeighting(SeveralTasks):
    """Weights that depend on the losses of this step and of those before it.

    A task whose loss is not finite has weight 0 in that step; the method sees a loss of 1 in its place.

    Examples
    --------
    A method in which a task counts by how large its loss is:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.loss_weighting import LossWeighting
    >>> class ByLoss(LossWeighting):
    ...     def weigh(self, losses):
    ...         return losses / losses.mean()
    >>> balancer = ByLoss(head_weight="unweighted", clip=0.0)
    >>> step = balance_gradients(balancer, gradients=[[1.0, 0.0], [0.0, 1.0]], losses=[1.0, 3.0])
    >>> step.weights, step.shared[0]
    (tensor([0.5000, 1.5000]), tensor([0.5000, 1.5000]))
    """

    @abstractmethod
    def weigh(self, losses: Tensor) -> Tensor:
        """A weight for each task, finite, shape [tasks], from finite losses (on the CPU, without a graph)."""

    def balance(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step, in one pass."""
        representation, pullback = network.represent(inputs)
        heads = network.head_pass(representation, targets)
        gradients = network.task_gradients(heads.slopes)
        weights = self._weights(heads.losses)
        if task_weights is not None:
            weights = weights * weights.new_tensor(task_weights)
        # A loss may be infinite where its slope is not (absolute error), and finite where its slope is not.
        sound = gradients.square().sum((1, 2)) + heads.losses
        shared = pullback(weighted_gradient(gradients, weights, sound))
        own = head_gradients(network, heads.gradients, weights, self.head_weight)
        return StepGradients(clipped(shared, self.clip), own, heads.losses, weights)

    def _weights(self, losses: Tensor) -> Tensor:
        seen = losses.detach().cpu()
        sound = seen.isfinite()
        weights = self.weigh(torch.where(sound, seen, 1.0)).to(losses.dtype)
        return torch.where(sound, weights, 0.0).to(losses.device)
