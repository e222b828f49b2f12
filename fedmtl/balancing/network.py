"""A model seen from some of its tasks, and the derivatives that balancers are made of.

A loss depends on the backbone only through the representation z. So a step has three pieces, each done once: the
backbone forward, each head's loss with its derivatives with respect to z and to the head, and the backbone's pullback
of a gradient with respect to z. Heads are linear and the derivatives of their losses are known; so are those of a
backbone made of linear layers and ReLUs. Written out, they cost a third to a half of what a graph costs on small
models. Any other backbone is differentiated by autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.shapes import Flatten
from fedmtl.tasks import Task

Pullback = Callable[[Tensor], Sequence[Tensor]]
"""From a gradient with respect to the representation, shape [batch, width], to one for each shared parameter."""


@dataclass(frozen=True, slots=True)
class HeadPass:
    """What the heads make of a representation.

    Attributes
    ----------
    losses
        Each task's mean loss, shape [tasks].
    slopes
        For each task the derivative of its mean loss with respect to its head's output, shape [batch, outputs].
    gradients
        The gradients of the heads' parameters, each of its own task's loss: weight and bias of the first, and so on.

    Examples
    --------
    One regression with a head of zeros: each slope is the error times 2 over the batch.

    >>> import torch
    >>> from fedmtl.balancing import TaskNetwork
    >>> from fedmtl.models import build_model
    >>> from fedmtl.tasks import Task
    >>> task = Task("height", "regression")
    >>> network = TaskNetwork(build_model("linear", {}, (2,), [task], seed=0), [task])
    >>> for value in network.values:
    ...     _ = value.zero_()
    >>> heads = network.head_pass(torch.eye(2), targets=[torch.tensor([1.0, -3.0])])
    >>> heads.losses, heads.slopes[0].T
    (tensor([5.]), tensor([[-1.,  3.]]))
    >>> heads.gradients
    [tensor([[-1.,  3.]]), tensor([2.])]
    """

    losses: Tensor
    slopes: list[Tensor]
    gradients: list[Tensor]


class TaskNetwork:
    """A model seen from some of its tasks (those that one client owns).

    It looks at the memory in which the model's parameters lie when it is made; a model that is bound to another vector
    afterwards needs another network.

    Attributes
    ----------
    tasks
        These tasks.
    backbone
        The backbone.
    shared
        Parameters of the backbone.
    heads
        For each of these tasks the weight and the bias of its head.
    head_parameters
        The same in one list.
    outputs
        Units of each head.
    values
        All these parameters, shared first, as tensors that share their memory and know nothing of gradients.

    Examples
    --------
    Descent with a balancer, in a plain loop:

    >>> from itertools import chain
    >>> import torch
    >>> from fedmtl.balancing import TaskNetwork
    >>> from fedmtl.balancing.ntkmtl import NTKMTL
    >>> from fedmtl.models import build_model
    >>> from fedmtl.tasks import Task
    >>> tasks = [Task("sum", "regression"), Task("positive", "binary")]
    >>> network = TaskNetwork(build_model("mlp", {}, (4,), tasks, seed=0), tasks)
    >>> inputs = torch.linspace(-1, 1, 80).view(20, 4)
    >>> targets = [inputs.sum(1), (inputs[:, 0] > 0).float()]
    >>> balancer, losses = NTKMTL(), []
    >>> for _ in range(50):
    ...     step = balancer.gradients(network, inputs, targets, task_weights=None)
    ...     losses.append(step.losses)
    ...     for value, gradient in zip(network.values, chain(step.shared, *step.heads)):
    ...         _ = value.sub_(0.05 * gradient)
    >>> losses[0].round(decimals=1), losses[-1].round(decimals=1)
    (tensor([5.4000, 0.7000]), tensor([0.0000, 0.2000]))
    """

    def __init__(self, model: MultiTaskModel, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self.shared = list(model.backbone.parameters())
        self._head_modules = [cast(nn.Linear, model.heads[task.key]) for task in tasks]
        # The same memory without a claim to gradients: what is computed from it builds no graph.
        self._head_values = [(head.weight.detach(), head.bias.detach()) for head in self._head_modules]
        self.heads = [[head.weight, head.bias] for head in self._head_modules]
        self.outputs = tuple(head.out_features for head in self._head_modules)
        self.head_parameters = [parameter for head in self.heads for parameter in head]
        self.values = [parameter.detach() for parameter in (*self.shared, *self.head_parameters)]
        self.backbone = model.backbone
        self._layers = linear_layers(model.backbone)

    def represent(self, inputs: Tensor) -> tuple[Tensor, Pullback]:
        """The representation of a batch, shape [batch, width], and its pullback, which may be called many times."""
        if self._layers is None:
            return self._represent_by_autograd(inputs)
        return _represent_by_layers(self._layers, inputs)

    def _represent_by_autograd(self, inputs: Tensor) -> tuple[Tensor, Pullback]:
        with torch.enable_grad():
            representation = self.backbone(inputs)
        if not self.shared:
            return representation.detach(), lambda gradient: ()
        return representation.detach(), lambda gradient: torch.autograd.grad(
            representation, self.shared, gradient, retain_graph=True
        )

    def predicted_representation(self, inputs: Tensor, batch: int = 1000) -> Tensor:
        """The representation of many examples as the model predicts (dropout off, statistics as they are), no graph."""
        mode = self.backbone.training
        self.backbone.eval()
        try:
            with torch.no_grad():
                return torch.cat([self.backbone(inputs[k : k + batch]) for k in range(0, len(inputs), batch)])
        finally:
            self.backbone.train(mode)

    def head_pass(self, representation: Tensor, targets: Sequence[Tensor]) -> HeadPass:
        """Each task's loss on a representation, and its derivatives.

        Parameters
        ----------
        representation
            Shape [batch, width].
        targets
            For each task its targets, shape [batch].
        """
        losses, slopes = self.losses_and_slopes(representation, targets)
        return HeadPass(losses, slopes, self.head_gradients(representation, slopes))

    def losses_and_slopes(self, representation: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What `HeadPass` calls losses and slopes."""
        losses: list[Tensor] = []
        slopes: list[Tensor] = []
        for task, (weight, bias), target in zip(self.tasks, self._head_values, targets, strict=True):
            loss, slope = task.loss_and_slope(torch.addmm(bias, representation, weight.t()), target)
            losses.append(loss)
            slopes.append(slope)
        return torch.stack(losses), slopes

    def head_gradients(self, representation: Tensor, slopes: Sequence[Tensor]) -> list[Tensor]:
        """What `HeadPass` calls gradients."""
        gradients: list[Tensor] = []
        for slope in slopes:
            gradients += (slope.t() @ representation, slope.sum(0))
        return gradients

    def stacked(self, slopes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """All slopes side by side, shape [batch, outputs], and all heads' weights one below the other.

        The second has shape [outputs, width]. Their product is the gradient of the sum of the losses with respect to
        the representation.
        """
        return torch.cat(list(slopes), 1), torch.cat([weight for weight, _ in self._head_values])

    def stacked_head_gradients(self, representation: Tensor, slopes: Tensor) -> list[Tensor]:
        """What `HeadPass` calls gradients, from slopes side by side."""
        weights = torch.split_with_sizes(slopes.t() @ representation, self.outputs)
        biases = torch.split_with_sizes(slopes.sum(0), self.outputs)
        return [gradient for head in zip(weights, biases, strict=True) for gradient in head]

    def summed_gradient(self, slopes: Sequence[Tensor]) -> Tensor:
        """Gradient of the sum of the losses with respect to the representation, shape [batch, width]."""
        total = slopes[0] @ self._head_values[0][0]
        for slope, (weight, _) in zip(slopes[1:], self._head_values[1:], strict=True):
            total.addmm_(slope, weight)
        return total

    def task_gradients(self, slopes: Sequence[Tensor]) -> Tensor:
        """Each task's gradient with respect to the representation, shape [tasks, batch, width]."""
        return torch.stack([slope @ weight for slope, (weight, _) in zip(slopes, self._head_values, strict=True)])

    def input_gradient(self, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Gradient of the sum of the losses with respect to the inputs, shape [batch, ...]."""
        with torch.enable_grad():
            x = inputs.detach().requires_grad_()
            total = torch.stack(self.losses(self.backbone(x), targets)).sum()
        (gradient,) = torch.autograd.grad(total, x)
        return gradient

    def by_head(self, gradients: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """Gradients as `HeadPass.gradients` has them, as a pair for each head."""
        return [gradients[i : i + 2] for i in range(0, len(gradients), 2)]

    def losses(self, representation: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        """Each task's mean loss (scalars), with a graph wherever the representation or the heads have one."""
        return [
            task.mean_loss(head(representation), target)
            for task, head, target in zip(self.tasks, self._head_modules, targets, strict=True)
        ]


def linear_layers(backbone: nn.Module) -> list[tuple[Tensor, Tensor]] | None:
    """Weights and biases of a backbone that flattens and then has a ReLU after each linear layer; else None."""
    first, *rest = backbone if isinstance(backbone, nn.Sequential) else [backbone]
    layers, activations = rest[::2], rest[1::2]
    fits = (
        isinstance(first, Flatten)
        and len(layers) == len(activations)
        and all(isinstance(layer, nn.Linear) and layer.bias is not None for layer in layers)
        and all(isinstance(activation, nn.ReLU) for activation in activations)
    )
    if not fits:
        return None
    return [(layer.weight.detach(), layer.bias.detach()) for layer in cast("list[nn.Linear]", layers)]


def _represent_by_layers(layers: Sequence[tuple[Tensor, Tensor]], inputs: Tensor) -> tuple[Tensor, Pullback]:
    """Forward through flattening and ``a <- relu(W a + b)``, and the pullback written out."""
    activations = [inputs.flatten(1)]
    for weight, bias in layers:
        activations.append(torch.addmm(bias, activations[-1], weight.t()).relu_())

    def pullback(gradient: Tensor) -> Sequence[Tensor]:
        found: list[Tensor] = []
        for index in range(len(layers) - 1, -1, -1):
            gradient = torch.ops.aten.threshold_backward(gradient, activations[index + 1], 0)
            found += (gradient.sum(0), gradient.t() @ activations[index])
            if index:
                gradient = gradient @ layers[index][0]
        return found[::-1]

    return activations[-1], pullback
