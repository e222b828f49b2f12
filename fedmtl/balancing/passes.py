"""What a job computes, as passes over batches: forward and backward through the backbone, and through the heads.

A balancer says what its gradients take (:meth:`fedmtl.balancing.base.Balancer.passes`), the client's half of a policy
what else a job takes, and the simulation's clock charges their sum (:mod:`simulations.work`). Only passes are counted:
what is done with the gradients of a step (their products, a direction) takes little beside them, unless tasks are many
and batches small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passes:
    """So many passes of a batch.

    Attributes
    ----------
    forward
        Through the backbone.
    backward
        From the representation to the gradients of the backbone's parameters. A gradient with respect to the inputs
        alone takes as many products as another forward pass, and counts as that.
    heads
        Products of a batch with the heads of all the client's tasks: their outputs, the gradients of their parameters,
        or those of the representation. A step takes the three, one task after the other or all at once.

    Examples
    --------
    Ten steps with a backward pass for each of four tasks:

    >>> from fedmtl.balancing.passes import Passes
    >>> 10 * Passes(forward=1, backward=4, heads=3)
    Passes(forward=10, backward=40, heads=30)
    """

    forward: float = 0
    backward: float = 0
    heads: float = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward, self.heads + other.heads)

    def __rmul__(self, times: float) -> Passes:
        return Passes(times * self.forward, times * self.backward, times * self.heads)


PLAIN = Passes(forward=1, backward=1, heads=3)
"""A plain local step: descent on the sum of the losses, whatever they are weighted by."""

NO_PASSES = Passes()


def batches_of(examples: int, batch_size: int) -> int:
    """Batches that so many examples are; a short one counts as whole, as it does among the steps of a job."""
    return math.ceil(examples / batch_size)
