"""The empirical neural tangent kernels of a multi-task model: of outputs and of losses, per task and of all.

Kernels of outputs are eq. 1 of "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent Kernel
Perspective" (arXiv 2510.18258): ``K_uv = <df(x_u)/dtheta, df(x_v)/dtheta>``, a row per example and output of the head.
Kernels of losses are those of the gradients of single examples' losses, a row per example. Task i's kernel is the block
``K_ii`` of the kernel of all tasks (theorem 3.2 there).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedmtl.data.federated import Examples
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.ntk.alignment import cosines
from fedmtl.ntk.spectrum import Matvec, Spectrum, dense_spectrum, free_spectrum
from fedmtl.ntk.tangents import MEMORY, Parameters, Rows, Tangents
from fedmtl.tasks import Task

_WORKSPACE = 4  # matrices of a kernel's size that its computation and its eigenvalues take at a time
_PASSES = 16  # gradients computed more often than this cost more than products without a matrix


class Kernels:
    """A model's kernels at some examples.

    Parameters
    ----------
    model
        Left as it is; derivatives are taken in float64 and in evaluation mode.
    tasks
        The model's tasks, in order.
    examples
        Where to take them; all targets are needed for the kernels of losses.
    parameters
        Derivatives with respect to the backbone's parameters (the paper's theta) or to all.
    memory
        Bytes that a kernel, or a block of gradients, may take.

    Attributes
    ----------
    tangents
        The derivatives themselves.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        tasks: Sequence[Task],
        examples: Examples,
        *,
        parameters: Parameters = "shared",
        memory: int = MEMORY,
    ) -> None:
        self.tasks = tuple(tasks)
        self.examples = len(examples)
        self.tangents = Tangents(model, examples.features, parameters=parameters, memory=memory)
        self._memory = memory
        self._slices = head_slices(tasks)
        self._targets = examples.targets
        self._slopes = example_slopes(self.tasks, self.tangents.outputs, examples.targets)

    def outputs(self, task: int | None = None) -> Rows:
        """A row for each example and output of a task's head (of all heads if None), example by example."""
        total = self.tangents.outputs.shape[1]
        unit = torch.eye(total, dtype=torch.float64)[slice(None) if task is None else self._slices[task]]
        example = torch.arange(self.examples).repeat_interleave(len(unit))
        return Rows(example, unit.repeat(self.examples, 1))

    def losses(self, task: int | None = None, tasks: Sequence[int] | None = None) -> Rows:
        """A row for each example: its loss in a task, or the sum of its losses in some tasks (all if None)."""
        chosen = range(len(self.tasks)) if tasks is None else tasks
        cotangent = torch.zeros_like(self._slopes)
        for index in chosen if task is None else (task,):
            cotangent[:, self._slices[index]] = self._slopes[:, self._slices[index]]
        return Rows(torch.arange(self.examples), cotangent)

    def example_losses(self, task: int) -> Tensor:
        """Each example's loss in a task, float64, shape [n]."""
        target = self._targets[task]
        return self.tasks[task].example_losses(
            self.tangents.outputs[:, self._slices[task]], target.double() if target.is_floating_point() else target
        )

    def gram(self, rows: Rows) -> Tensor:
        """The kernel of these rows, shape [m, m]."""
        return self.tangents.gram(rows)

    def fits(self, rows: Rows) -> bool:
        """Whether the kernel of these rows and its eigenvalues fit into the memory at a bearable cost."""
        return 8 * _WORKSPACE * len(rows) ** 2 <= self._memory and self.tangents.passes(len(rows)) <= _PASSES

    def product(self, rows: Rows) -> Matvec:
        """``v -> K v`` for the kernel of these rows: with its matrix where that fits, else without."""
        if self.fits(rows):
            kernel = self.gram(rows)
            return lambda vector: kernel @ vector
        return lambda vector: self.tangents.apply(rows, rows, vector)

    def spectrum(self, rows: Rows, seed: int = 0) -> Spectrum:
        """The spectrum of the kernel of these rows: complete where it fits, else without the matrix."""
        if self.fits(rows):
            return dense_spectrum(self.gram(rows))
        return free_spectrum(lambda vector: self.tangents.apply(rows, rows, vector), len(rows), seed)

    def gradient_cosines(self) -> Tensor:
        """Cosines between the tasks' mean gradients, shape [tasks, tasks]; no gradient is held but one at a time."""
        rows = Rows.joined([self.losses(task) for task in range(len(self.tasks))])
        products = []
        for task in range(len(self.tasks)):
            mean = torch.zeros(len(rows), dtype=torch.float64)
            mean[task * self.examples : (task + 1) * self.examples] = 1.0 / self.examples
            products.append(self.tangents.apply(rows, rows, mean).view(-1, self.examples).mean(1))
        found = torch.stack(products)
        return cosines((found + found.t()) / 2)


def head_slices(tasks: Sequence[Task]) -> list[slice]:
    """Where each task's outputs are among the outputs of all heads side by side."""
    stops = torch.tensor([task.outputs for task in tasks]).cumsum(0).tolist()
    return [slice(stop - task.outputs, stop) for stop, task in zip(stops, tasks, strict=True)]


def example_slopes(tasks: Sequence[Task], outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Derivative of each example's loss in each task with respect to the outputs, shape [n, outputs]."""
    slopes = []
    for task, part, target in zip(tasks, head_slices(tasks), targets, strict=True):
        truth = target.double() if target.is_floating_point() else target
        slopes.append(task.loss_and_slope(outputs[:, part], truth)[1] * len(outputs))
    return torch.cat(slopes, 1)
