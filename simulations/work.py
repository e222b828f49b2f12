"""How much work an order is: its forward and backward passes over those of a plain local step.

With the multiplications of a weight matrix counted once for each example (a convolution's once for each place, which
all layers are taken to have alike),

    F = sum of the sizes of the backbone's matrices         forward
    B = 2 F - size of the first of them                     backward: no gradient of the inputs is taken
    H = sum of the sizes of the client's heads' matrices    outputs, or gradients of parameters or of the representation

    work = (f F + b B + h H) / (F + B + 3 H)                for f, b and h passes

so that F : B is about 1 : 2 for deep networks. Balancer and policy declare their passes
(:class:`fedmtl.balancing.passes.Passes`); a job of plain steps is worth just these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clients.policies import client_half
from fedmtl.balancing import build_balancer
from fedmtl.balancing.base import Balancer
from fedmtl.balancing.passes import Passes, batches_of
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import TrainOrder


class OrderWork:
    """The work of orders on one model.

    Parameters
    ----------
    layout
        Layout of the model, whose matrices are counted.

    Examples
    --------
    Four tasks on a backbone of 6144 multiplications, of which its first layer has 4096:

    >>> from fedmtl.balancing.passes import PLAIN, Passes
    >>> from fedmtl.models import build_model
    >>> from fedmtl.parameters import ParameterLayout
    >>> from fedmtl.tasks import Task
    >>> from simulations.work import OrderWork
    >>> tasks = [Task(name, "regression") for name in "abcd"]
    >>> work = OrderWork(ParameterLayout.of(build_model("mlp", {}, (64,), tasks, seed=0)))
    >>> work.plain_steps(10 * PLAIN, range(4))
    10.0
    >>> round(work.plain_steps(10 * Passes(forward=1, backward=4, heads=3), range(4)), 1)
    26.7
    """

    def __init__(self, layout: ParameterLayout) -> None:
        shared = _matrices(layout, layout.shared)
        self._forward = sum(shared)
        self._backward = 2 * self._forward - (shared[0] if shared else 0)
        self._heads = [sum(_matrices(layout, head)) for head in layout.heads]
        self._balancers: dict[tuple[str, str], Balancer] = {}

    def of(self, order: TrainOrder, steps: int, examples: int, tasks: Sequence[int]) -> float:
        """How many plain local steps an order is worth.

        Parameters
        ----------
        order
            The order.
        steps
            Its local steps.
        examples, tasks
            Training examples of the client, and the tasks that it owns.
        """
        half, batches = client_half(order.policy), batches_of(examples, order.settings.batch_size)
        calls = half.gradient_calls(order, steps)
        passes = self._balancer(order).passes(calls, len(tasks), batches)
        return self.plain_steps(passes + half.passes(order, steps, examples, len(tasks)), tasks)

    def plain_steps(self, passes: Passes, tasks: Sequence[int]) -> float:
        """So many passes in plain local steps of a client that owns these tasks."""
        if passes.forward == passes.backward and passes.heads == 3 * passes.forward:
            return float(passes.forward)  # without the rounding of the division
        heads = sum(self._heads[task] for task in tasks)
        plain = self._forward + self._backward + 3 * heads
        return (passes.forward * self._forward + passes.backward * self._backward + passes.heads * heads) / plain

    def _balancer(self, order: TrainOrder) -> Balancer:
        key = order.balancing.name, repr(sorted(order.balancing.options.items()))
        if key not in self._balancers:
            self._balancers[key] = build_balancer(order.balancing)
        return self._balancers[key]


def _matrices(layout: ParameterLayout, part: slice) -> list[int]:
    """Entries of each weight matrix, or convolution, in this part of the vector; biases and norms multiply little."""
    return [
        math.prod(entry.shape)
        for entry in layout.entries
        if part.start <= entry.start and entry.stop <= part.stop and len(entry.shape) > 1
    ]
