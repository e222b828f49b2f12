"""The rule of a client's steps: the seam in local training through which a policy changes what a job does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.parameters import ParameterLayout

Compute = Callable[[Tensor, Sequence[Tensor]], StepGradients]
"""The balancer's gradients at the network's values of the moment, from inputs [batch, ...] and targets [batch]."""


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What lies before a client when a job begins.

    Attributes
    ----------
    network
        The model seen from the client's tasks; its values are those that were sent.
    vector, layout
        The flat vector that the network's values are views of, shape [P], and its layout. It may be written to.
    features, targets
        All training examples of the client, shape [n, ...], and for each of its tasks their targets, shape [n].
    losses
        Gives, when called, the loss of each example under the present values, summed over the tasks, shape [n].
    factors
        The server's factor for each task in the shared gradient; None for ones.
    pooled
        The features of all clients' examples, shape [N, ...], where they are known.
    """

    network: TaskNetwork
    vector: Tensor
    layout: ParameterLayout
    features: Tensor
    targets: Sequence[Tensor]
    losses: Callable[[], Tensor]
    factors: Sequence[float] | None = None
    pooled: Tensor | None = None


class StepRule:
    """Changes what a client does in one job; the client's half of a policy makes a new one for each job.

    The three moments are neutral here: what inherits them unchanged trains as ever.
    """

    def start(self, bench: Workbench) -> Tensor | None:
        """The job begins; returns the positions of the examples to train on, int64 in 0..n-1, or None for all."""
        return None

    def gradients(
        self, compute: Compute, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]
    ) -> StepGradients:
        """The gradients of one step on a batch; may call `compute` as often as needed."""
        return compute(inputs, targets)

    def finish(self, bench: Workbench) -> None:
        """The steps are done, and the values will now be compared with those that were sent."""
        return None
