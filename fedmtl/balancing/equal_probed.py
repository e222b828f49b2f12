"""Equal weights, and a probe of each task's kernel at the model that the client was sent.

The client's half of FedNTK-trace (:mod:`strategies.task_weights.fedntk_trace`): the server's factors weigh the shared
gradient, and the size of each task's kernel goes up to the server. All of a job's probes are taken at the downloaded
point, before any drift, so that what different clients measure of one version can be added:

    S_i = sum_j ||grad_theta l_i(batch_j)||^2  over the job's first m batches     (sr: ||dl_i/dz||^2)

Before that the heads can be aligned (`align`): some damped Newton steps of the heads alone, on all examples of the job
at the backbone that was sent (:mod:`fedmtl.balancing.heads`). The kernels are then those of heads that fit, and not of
heads that were left behind by the backbone. With ``head_step = "newton"`` the joint steps, too, move the heads in that
metric, ``dl/dV (G + rho I)^-1 / h`` in place of ``dl/dV``, so that heads of all scales converge at the learning rate.

The batches are those that the job trains on, so that probing changes none of them. The first is met at the downloaded
point anyway; for the others the parameters are put back for the length of the probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.equal import Equal
from fedmtl.balancing.gradients import clipped
from fedmtl.balancing.heads import HeadMetric, align_heads, reach
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.options import HeadWeight
from fedmtl.balancing.passes import NO_PASSES, PLAIN, Passes
from fedmtl.balancing.sketch import Projection
from fedmtl.balancing.weights import KernelSize, gram, kernel_size
from fedmtl.components import Param
from fedmtl.errors import ConfigError

ProbePoint = Literal["full", "sr"]
"""Kernels of gradients with respect to the backbone's parameters, or to the shared representation."""

HeadStep = Literal["gradient", "newton"]
"""Whether a head follows its gradient, or its damped Newton step."""


class EqualProbed(Balancer):
    """Equal weights, with every task's kernel measured at the model that the client was sent.

    Examples
    --------
    The step is that of equal weights, and the server gets to know the kernels' sizes 100 and 1:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.equal_probed import EqualProbed
    >>> step = balance_gradients(EqualProbed(), [[10.0, 0.0], [0.0, 1.0]])
    >>> step.shared[0], step.kernel_sizes
    (tensor([10.,  1.]), tensor([100.,   1.]))
    """

    reports = True

    def __init__(
        self,
        *,
        statistic: Annotated[
            KernelSize, Param("size of a kernel; denoised needs 2 batches and the full probe")
        ] = "trace",
        probe: Annotated[ProbePoint, Param("kernels of the backbone's parameters, or of the representation")] = "full",
        batches: Annotated[int, Param("m, batches that a job probes", ge=1)] = 2,
        head_weight: Annotated[HeadWeight, Param("whether the server's factors scale the heads")] = "unweighted",
        clip: Annotated[float, Param("upper bound of the shared gradient's L2 norm; 0 for none", ge=0)] = 0.0,
        head_clip: Annotated[float, Param("bound of the L2 norm of what each head follows; 0: none", ge=0)] = 0.0,
        align: Annotated[int, Param("Newton steps of the heads alone before a job; 0 for none", ge=0)] = 0,
        damping: Annotated[float, Param("of Newton steps, relative to the mean eigenvalue", gt=0)] = 0.3,
        head_step: Annotated[HeadStep, Param("what heads follow in joint steps")] = "gradient",
        sketch: Annotated[int, Param("entries of each task's sketched gradient; 0 for no sketches", ge=0)] = 0,
        sketch_seed: Annotated[int, Param("of the sketches' projection, which all clients share", ge=0)] = 0,
    ) -> None:
        if sketch and probe == "sr":
            raise ConfigError(
                "balancing.probe = 'sr' with sketches: they are of the backbone's gradients, which only the full probe "
                "takes; set balancing.probe = 'full'"
            )
        if head_step == "newton" and head_weight == "weighted":
            raise ConfigError(
                "balancing.head_weight = 'weighted' with balancing.head_step = 'newton': a Newton step is the same for "
                "a loss of any weight; set balancing.head_weight = 'unweighted' or balancing.head_step = 'gradient'"
            )
        if statistic == "denoised" and (batches < 2 or probe == "sr"):
            raise ConfigError(
                "balancing.statistic = 'denoised' compares the backbone's gradients of different batches: set "
                "balancing.batches to 2 or more, and balancing.probe = 'full'"
            )
        self.statistic = statistic
        self.probe = probe
        self.batches = batches
        self.head_clip = head_clip
        self.align = align
        self.damping = damping
        self.head_step = head_step
        self._equal = Equal(head_weight=head_weight, clip=clip)
        self._projection = Projection(sketch, sketch_seed) if sketch else None
        self._sketches: Tensor | None = None  # of the latest batch that was probed, shape [tasks, m]
        self._metric: HeadMetric | None = None
        self._probed = 0
        self._base: list[Tensor] = []
        self._rows: list[Tensor] = []  # gradients of the batches so far, shape [tasks, shared parameters] each
        self._size: Tensor | None = None  # the kernels' size over the batches so far, shape [tasks]

    def start_job(self, generator: torch.Generator) -> None:
        """Nothing is aligned or probed yet."""
        self._metric = None
        self._probed, self._base, self._rows, self._size = 0, [], [], None

    def prepare(self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> None:
        """Prepare the step of the heads from the representation of all the client's examples."""
        if self.align or self.head_step == "newton":
            representation = network.predicted_representation(inputs)
            self._metric = HeadMetric(representation, self.damping)
            align_heads(network, representation, targets, self._metric, self.align)

    def passes(self, calls: int, tasks: int, batches: int) -> Passes:
        """The steps, the probes of the first m of them, and what `prepare` does with all examples.

        That is the representation and, where heads are aligned, their losses before the first Newton step and after
        each, and their gradients in each.
        """
        probe = Passes(forward=1, backward=tasks if self.probe == "full" else 0, heads=3)
        heads = 1 + 2 * self.align
        prepared = Passes(forward=1, heads=heads) if self.align or self.head_step == "newton" else NO_PASSES
        return calls * PLAIN + min(calls, self.batches) * probe + batches * prepared

    def gradients(
        self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor], task_weights: Sequence[float] | None
    ) -> StepGradients:
        """Gradients of one step; the first m steps of a job probe, too."""
        kernel_sizes = self._probe(network, inputs, targets) if self._probed < self.batches else None
        step = self._equal.gradients(network, inputs, targets, task_weights)
        step.kernel_sizes = kernel_sizes
        step.sketches = None if kernel_sizes is None else self._sketches
        if self.head_step == "newton":
            step.heads = self._newton(network, step)
        if self.head_clip:
            step.heads = [clipped(head, self.head_clip) for head in step.heads]
        return step

    def _newton(self, network: TaskNetwork, step: StepGradients) -> list[Sequence[Tensor]]:
        """The heads' steps in the metric of the job's examples."""
        if self._metric is None:
            raise RuntimeError("head_step = 'newton' needs a call of prepare() before a job's first step")
        reaches = map(reach, network.tasks, step.losses.tolist())
        return [self._metric.step(head, far) for head, far in zip(step.heads, reaches, strict=True)]

    def _probe(self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """A number for each task; the mean of these numbers is the size over all batches so far, shape [tasks]."""
        drifted: list[Tensor] = []
        if self._probed:
            drifted = [value.clone() for value in network.values]
            torch._foreach_copy_(network.values, self._base)
        elif self.batches > 1:
            self._base = [value.clone() for value in network.values]
        size = self._measure(network, inputs, targets)
        if drifted:
            torch._foreach_copy_(network.values, drifted)
        before, n = self._size, self._probed
        self._probed, self._size = n + 1, size
        return size if before is None else (n + 1) * size - n * before

    def _measure(self, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The kernels' size over this batch and those before it, shape [tasks]."""
        representation, pullback = network.represent(inputs)
        slopes = network.task_gradients(network.head_pass(representation, targets).slopes)
        if self.probe == "sr" or not network.shared:
            self._sketch(slopes.new_zeros(len(slopes), 0))
            return self._running(slopes.square().sum((1, 2)))
        rows = [torch.cat([part.reshape(-1) for part in pullback(slope)]) for slope in slopes]
        self._sketch(rows)
        if self.statistic == "trace":
            return self._running(torch.stack([row.dot(row) for row in rows]))
        self._rows.append(torch.stack(rows))
        return kernel_size(gram(torch.stack(self._rows, dim=1)), self.statistic)

    def _sketch(self, rows: Sequence[Tensor] | Tensor) -> None:
        """Sketch the gradients of one batch, one for each task; the mean over a job's batches is the mean's sketch."""
        if self._projection is not None:
            self._sketches = self._projection(rows if isinstance(rows, Tensor) else torch.stack(list(rows)))

    def _running(self, squares: Tensor) -> Tensor:
        """Where the kernel over batches is taken as diagonal: the mean of its entries so far, or the largest."""
        if self._size is None:
            return squares
        if self.statistic == "top_eig":
            return torch.maximum(self._size, squares)
        return (self._probed * self._size + squares) / (self._probed + 1)
