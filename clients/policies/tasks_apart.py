"""The client's half of FSMGDA: each task is trained apart, and its change of the backbone goes up by itself.

Down: nothing beside the settings. Up: the update's delta is the sum of the tasks' changes ``D_i`` of the backbone, and
each head's own change. For every owned task but the first the vector ``task i`` holds ``D_i`` in the layout's shared
part, and zeros elsewhere; the first task's change is what is left of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.descent import Descent
from clients.policies.base import ClientHalf, Observed, Plan, Probe, Report
from clients.policies.step_rule import Compute, StepRule, Workbench
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.passes import PLAIN, Passes
from fedmtl.protocol import TrainOrder, TrainSettings, Update


class TasksApartHalf(ClientHalf):
    """Trains the tasks apart."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, for each task."""
        return Plan(order.settings, step_rule=TasksApart(order.settings))

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report:
        """The changes of all owned tasks but the first."""
        assert isinstance(plan.step_rule, TasksApart)
        vectors = {}
        for task, change in list(zip(update.tasks, plan.step_rule.changes, strict=False))[1:]:
            vectors[f"task {task}"] = torch.zeros(order.base.layout.size)
            vectors[f"task {task}"][order.base.layout.shared] = change.cpu()
        return Report(vectors=vectors)

    def task_bytes_up(self, order: TrainOrder, tasks: int) -> int:
        """The backbone once more for each task but the first."""
        shared = order.base.layout.shared
        return int(4 * (shared.stop - shared.start) * (tasks - 1))

    def gradient_calls(self, order: TrainOrder, steps: int) -> int:
        """None: where tasks meet in no step, nothing is balanced."""
        return 0

    def passes(self, order: TrainOrder, steps: int, examples: int, tasks: int) -> Passes:
        """Every task takes all the steps."""
        return steps * tasks * PLAIN


class TasksApart(StepRule):
    """From the model that was sent, descends on each task's loss alone; the tasks meet in no step.

    With task i's values w_i (backbone and head i), for each batch ``w_i <- w_i - eta clip(grad l_i(w_i))``, with
    momentum, weight decay and a proximal term as the settings say (and the backbone and the head clipped together or
    each by itself); the server's factors scale the backbone's part of
    the gradient. The job ends at the start plus the sum of the tasks' changes.

    Parameters
    ----------
    settings
        How to descend.

    Attributes
    ----------
    changes
        After the job, each task's change of the backbone, flat, of the length of the layout's shared part.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.changes: list[Tensor] = []
        self._start: list[Tensor] = []
        self._values: list[list[Tensor]] = []
        self._descents: list[Descent] = []
        self._factors: Sequence[float] | None = None

    def start(self, bench: Workbench) -> Tensor | None:
        """Every task begins at the values that were sent."""
        network = bench.network
        self._factors = bench.factors
        self._start = [value.clone() for value in network.values]
        self._values = [[value.clone() for value in _of(network, network.values, i)] for i in range(len(network.tasks))]
        self._descents = [
            Descent(values, self.settings, _of(network, self._start, i)) for i, values in enumerate(self._values)
        ]
        return None

    def gradients(
        self, compute: Compute, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]
    ) -> StepGradients:
        """One step of every task; nothing is left for the trainer's own step."""
        losses = []
        for task, values in enumerate(self._values):
            torch._foreach_copy_(_of(network, network.values, task), values)
            representation, pullback = network.represent(inputs)
            heads = network.head_pass(representation, targets)
            shared = list(pullback(network.task_gradients(heads.slopes)[task]))
            if self._factors is not None and shared:
                shared = list(torch._foreach_mul(shared, self._factors[task]))
            self._descents[task].step(shared, [heads.gradients[2 * task : 2 * task + 2]])
            losses.append(heads.losses[task])
        idle = [torch.zeros_like(value) for value in network.values]
        count = len(network.shared)
        return StepGradients(idle[:count], network.by_head(idle[count:]), torch.stack(losses))

    def finish(self, bench: Workbench) -> None:
        """Put the start and all the changes into the model's values."""
        network = bench.network
        torch._foreach_copy_(network.values, self._start)
        self.changes = []
        count = len(network.shared)
        for task, values in enumerate(self._values):
            own = _of(network, network.values, task)
            change = torch._foreach_sub(values, _of(network, self._start, task))
            torch._foreach_add_(own, change)
            flat = [part.reshape(-1) for part in change[:count]]
            self.changes.append(torch.cat(flat) if flat else torch.zeros(0))


def _of(network: TaskNetwork, values: Sequence[Tensor], task: int) -> list[Tensor]:
    """Of values in the network's order, the backbone's and those of one task's head."""
    head = len(network.shared) + 2 * task
    return [*values[: len(network.shared)], *values[head : head + 2]]
