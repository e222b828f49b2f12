"""How fast errors decay: what a model's kernel predicts, and what gradient descent really does.

With the kernel K of all outputs at n examples held fixed, a step of gradient descent on the sum of the tasks' mean
losses changes the outputs o, shape [n outputs], by

    o(t+1) = o(t) - eta K s(o(t)),        s = dL/do, for L = sum_i mean_u loss_i(o_u)

For a squared loss ``c e^2`` alone s = 2c e / n is linear and ``e(t) = (I - 2 c eta/n K)^t e(0)``, or ``exp(-2 c eta t/n
K) e(0)`` for small steps: the component along an eigenvector r decays as ``exp(-2 c eta lambda_r t / n)`` (eq. 4 and 5
of arXiv 2510.18258). For the other losses only the network is linearised, in its parameters; the loss and its slope
stay as they are (arXiv 1902.06720, section 2.2), so the recursion above is run step by step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmtl.data.federated import Examples
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.ntk.kernels import Kernels, example_slopes, head_slices
from fedmtl.ntk.spectrum import Matvec, top_eigenpairs
from fedmtl.ntk.tangents import MEMORY, Parameters
from fedmtl.tasks import Task

_CURVATURE = {"cross_entropy": 0.5, "binary_cross_entropy": 0.25, "squared_error": 2.0, "absolute_error": 1.0}
"""Upper bounds of the losses' second derivative in the outputs; the absolute error has none, and takes 1."""

STABLE_SHARE = 0.05
"""The default step as a share of ``1 / lambda``, lambda the largest curvature: a flow is then a good picture of it, and
the kernel may grow 40-fold before the descent becomes unstable."""


@dataclass(frozen=True, eq=False)
class Course:
    """A descent, before the first step and after each.

    Attributes
    ----------
    losses
        Each example's loss in each task, shape [steps + 1, n, tasks].
    outputs
        Shape [steps + 1, n, outputs].
    """

    losses: Tensor
    outputs: Tensor

    @classmethod
    def of(cls, outputs: Sequence[Tensor], tasks: Sequence[Task], targets: Sequence[Tensor]) -> Course:
        """The course of the losses that a model's outputs had at some moments."""
        return cls(torch.stack([example_losses(tasks, each, targets) for each in outputs]), torch.stack(list(outputs)))


def curvature(product: Matvec, tasks: Sequence[Task], examples: int, seed: int = 0) -> float:
    """An upper bound of the largest eigenvalue of the mean losses' curvature along the kernel's directions.

    It is the largest eigenvalue of ``D^1/2 K D^1/2 / n``, with D the losses' largest second derivatives; descent with a
    step below twice its inverse is stable as long as the kernel stays what it is.

    Parameters
    ----------
    product
        ``v -> K v`` for the kernel of all outputs, example by example.
    tasks, examples
        The tasks, and n.
    seed
        Of the first Lanczos vector.
    """
    bounds = torch.cat([torch.full((t.outputs,), _CURVATURE[str(t.loss)] * t.loss_factor) for t in tasks]).double()
    root = bounds.sqrt().repeat(examples)
    if len(root) == 1:
        return float(root * product(root))
    return float(top_eigenpairs(lambda v: root * product(root * v), len(root), seed, 1)[0]) / examples


def predicted_course(
    product: Matvec, outputs: Tensor, tasks: Sequence[Task], targets: Sequence[Tensor], rate: float, steps: int
) -> Course:
    """The descent of a model whose kernel stays what it is.

    Parameters
    ----------
    product
        ``v -> K v`` for the kernel of all outputs, example by example (`Kernels.outputs()`).
    outputs
        At the start, shape [n, outputs].
    tasks, targets
        All tasks and their targets.
    rate, steps
        eta, and how many steps.
    """
    course = [outputs]
    for _ in range(steps):
        slopes = example_slopes(tasks, course[-1], targets) / len(outputs)
        course.append(course[-1] - rate * product(slopes.flatten()).view_as(outputs))
    return Course.of(course, tasks, targets)


def measured_course(
    model: MultiTaskModel,
    tasks: Sequence[Task],
    examples: Examples,
    rate: float,
    steps: int,
    parameters: Parameters = "all",
) -> Course:
    """The descent of the model itself, in float64 and with all examples in every step; the model is left as it is."""
    trained = copy.deepcopy(model).double().eval()
    chosen = list((trained if parameters == "all" else trained.backbone).parameters())
    inputs = examples.features.double() if examples.features.is_floating_point() else examples.features
    outputs = torch.cat(trained(inputs), 1)
    course = [outputs.detach()]
    for _ in range(steps):
        slopes = example_slopes(tasks, outputs.detach(), examples.targets) / len(inputs)
        gradients = torch.autograd.grad(outputs, chosen, slopes, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(chosen, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient, alpha=rate)
        outputs = torch.cat(trained(inputs), 1)
        course.append(outputs.detach())
    return Course.of(course, tasks, examples.targets)


def example_losses(tasks: Sequence[Task], outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Each example's loss in each task, shape [n, tasks]."""
    losses = []
    for task, part, target in zip(tasks, head_slices(tasks), targets, strict=True):
        losses.append(task.example_losses(outputs[:, part], target.double() if target.is_floating_point() else target))
    return torch.stack(losses, 1)


def single_task(model: MultiTaskModel, task: Task) -> MultiTaskModel:
    """A copy of a model that has this task's head alone."""
    alone = copy.deepcopy(model)
    for key in list(alone.heads):
        if key != task.key:
            del alone.heads[key]
    return alone


@dataclass(frozen=True, eq=False)
class Directions:
    """A squared error along the eigenvectors of its kernel.

    Attributes
    ----------
    eigenvalues
        Of ``K``, descending, shape [n].
    vectors
        Columns, shape [n, n].
    start
        Components of the residual ``o - y`` at the start, shape [n].
    speed
        Rates of decay per step: ``2 c eta lambda / n``.
    """

    eigenvalues: Tensor
    vectors: Tensor
    start: Tensor
    speed: Tensor

    def flow(self, steps: Tensor) -> Tensor:
        """``exp(-speed t) e(0)`` along every eigenvector, shape [len(steps), n]: gradient flow."""
        return torch.exp(-steps[:, None] * self.speed) * self.start

    def descent(self, steps: Tensor) -> Tensor:
        """``(1 - speed)^t e(0)``, shape [len(steps), n]: gradient descent."""
        return (1.0 - self.speed) ** steps[:, None] * self.start

    def components(self, residual: Tensor) -> Tensor:
        """Components of a residual, shape [n]."""
        return self.vectors.t() @ residual


def directions(kernels: Kernels, task: int, target: Tensor, rate: float) -> Directions:
    """The residual of a task with squared error along the eigenvectors of its kernel of outputs.

    Raises
    ------
    ValueError
        If the task's loss is another: its residual follows no linear equation.
    """
    chosen = kernels.tasks[task]
    if chosen.loss != "squared_error":
        raise ValueError(f"task {chosen.name!r} has the loss {chosen.loss}: only a squared error decays linearly")
    values, vectors = torch.linalg.eigh(kernels.gram(kernels.outputs(task)))
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)
    residual = kernels.tangents.outputs[:, head_slices(kernels.tasks)[task]][:, 0] - target.double()
    speed = 2.0 * chosen.loss_factor * rate * values / kernels.examples
    return Directions(values, vectors, vectors.t() @ residual, speed)


@dataclass(frozen=True, eq=False)
class TaskDecay:
    """A task trained alone by gradient descent on all parameters: predicted and measured.

    Attributes
    ----------
    task
        The task.
    rate, curvature
        The step, and the curvature that bounds it.
    predicted, measured
        Each example's loss before the first step and after each, shape [steps + 1, n].
    directions, components
        For a squared error whose kernel fits and is finite: its eigenvectors, and the measured components of the
        residual along them, shape [steps + 1, n]; else None.
    """

    task: Task
    rate: float
    curvature: float
    predicted: Tensor
    measured: Tensor
    directions: Directions | None
    components: Tensor | None


def task_decay(
    model: MultiTaskModel,
    task: Task,
    features: Tensor,
    target: Tensor,
    steps: int,
    *,
    rate: float | None = None,
    memory: int = MEMORY,
) -> TaskDecay:
    """What one task's kernel predicts of its training alone, and that training.

    Parameters
    ----------
    model, task
        A model, and one of its tasks; the other heads are left out.
    features, target
        The examples, shapes [n, ...] and [n].
    steps, rate
        Of gradient descent with all examples in every step; by default the rate is `STABLE_SHARE` over the curvature.
    memory
        Bytes that the kernel may take; without its matrix every step of the prediction costs two passes.
    """
    alone, examples = single_task(model, task), Examples(features, (target,))
    kernels = Kernels(alone, [task], examples, parameters="all", memory=memory)
    product = kernels.product(kernels.outputs())
    steepest = curvature(product, [task], len(features))
    eta = rate if rate is not None else STABLE_SHARE / steepest if steepest > 0 else STABLE_SHARE
    predicted = predicted_course(product, kernels.tangents.outputs, [task], [target], eta, steps)
    measured = measured_course(alone, [task], examples, eta, steps)
    found, components = None, None
    if task.loss == "squared_error" and math.isfinite(steepest) and kernels.fits(kernels.outputs()):
        found = directions(kernels, 0, target, eta)
        components = (measured.outputs[:, :, 0] - target.double()) @ found.vectors
    return TaskDecay(task, eta, steepest, predicted.losses[:, :, 0], measured.losses[:, :, 0], found, components)
