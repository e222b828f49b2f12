"""The client's half of FedGELA: frozen classifiers, whose logits follow the client's own classes.

"Federated Learning with Bilateral Curation for Partially Class-Disjoint Data" (arXiv 2405.18972). The head of a task of
C classes is a matrix M, a row for each class, that nobody trains. A client with n examples, n_c of class c, trains the
rest of the model on the logits

    phi_c M_c h / T,    phi_c = C n_c / n,

with a representation h and a temperature T. A class that the client lacks has the logit 0, from which no gradient
flows. The head is sent back as it came. Heads of tasks without classes are trained as ever.

Down: M, in the model that the run starts from (:mod:`strategies.policies.simplex_classifier`), and the constant
``temperature``. Up: nothing beside the update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe
from clients.policies.step_rule import Compute, StepRule, Workbench
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.protocol import TrainOrder


class SimplexClassifierHalf(ClientHalf):
    """Trains beneath frozen heads."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, with frozen heads."""
        return Plan(order.settings, step_rule=SimplexClassifier(order.constants["temperature"]))


class SimplexClassifier(StepRule):
    """Trains with scaled heads in place of the true ones.

    Parameters
    ----------
    temperature
        T.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._heads: list[_Head] = []

    def start(self, bench: Workbench) -> None:
        """Count the classes, and scale the heads."""
        network = bench.network
        for index, (task, target) in enumerate(zip(network.tasks, bench.targets, strict=True)):
            if task.kind != "classification":
                continue
            place = len(network.shared) + 2 * index
            weight, bias = (value.clone() for value in network.values[place : place + 2])
            phi = class_shares(target, task.outputs) / self.temperature
            scaled = [weight * phi.unsqueeze(1), torch.zeros_like(bias)]
            self._heads.append(_Head(index, network.values[place : place + 2], [weight, bias], scaled))

    def gradients(
        self, compute: Compute, network: TaskNetwork, inputs: Tensor, targets: Sequence[Tensor]
    ) -> StepGradients:
        """Gradients with the scaled heads, and none for the heads themselves."""
        for head in self._heads:
            torch._foreach_copy_(head.values, head.scaled)
        step = compute(inputs, targets)
        heads = list(step.heads)
        for head in self._heads:
            torch._foreach_copy_(head.values, head.sent)
            heads[head.task] = [torch.zeros_like(value) for value in head.sent]
        return dataclasses.replace(step, heads=heads)

    def finish(self, bench: Workbench) -> None:
        """Put the heads back: weight decay and momentum may have moved them."""
        for head in self._heads:
            torch._foreach_copy_(head.values, head.sent)


class _Head(NamedTuple):
    """Weight and bias of a head: those in the network, as they were sent, and those to train with."""

    task: int
    values: list[Tensor]
    sent: list[Tensor]
    scaled: list[Tensor]


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """phi, shape [classes]: 1 for every class where all are as frequent."""
    return torch.bincount(labels, minlength=classes).float() * (classes / len(labels))
