"""Sequential local training: one module, reused for every client."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clients.descent import Descent, views_of
from clients.policies import client_half
from clients.policies.base import Choice, ClassAccuracy, Observed, Plan
from clients.policies.step_rule import Compute, Workbench
from fedmtl.balancing import build_balancer
from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.data.federated import FederatedData
from fedmtl.hardware import usable_device
from fedmtl.models.multitask import MultiTaskModel, judging
from fedmtl.models.own_state import OwnState
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, TrainOrder, Update
from fedmtl.randomness import default_generators, derive_seed


class LocalTrainer:
    """Trains any client's order, one after the other, on one module whose parameters are views of one flat vector.

    An update depends on the order, on what the client observed and on the client's data, and on nothing else.

    Parameters
    ----------
    model
        The module to train with; the trainer takes it over and rebinds its parameters.
    data
        The clients' examples; they are moved to the device once.
    device
        Where to train.

    Raises
    ------
    ConfigError
        If this machine has no such device.
    """

    def __init__(self, model: MultiTaskModel, data: FederatedData, *, device: torch.device | str = "cpu") -> None:
        self.device = usable_device(device)
        self._model = model.to(self.device).train()
        self.layout = ParameterLayout.of(self._model)
        self._vector = torch.zeros(self.layout.size, device=self.device)
        self.layout.bind(self._model, self._vector)
        self._own = OwnState(self._model, self.layout)
        self._data = data
        self._train = data.train.to(self.device)
        self._batches = torch.Generator()
        self._draws = torch.Generator()
        self._networks: dict[tuple[int, ...], TaskNetwork] = {}
        self._balancers: dict[tuple[str, str], Balancer] = {}

    def train(self, order: TrainOrder, observed: Observed | None = None) -> Update:
        """Do the job that an order asks for.

        Parameters
        ----------
        order
            The order.
        observed
            What the client observed on receiving it (see :class:`clients.policies.base.ClientHalf`).

        Returns
        -------
        Update
            With `failure` set if a loss was not finite.

        Raises
        ------
        ConfigError
            If the model keeps a state that is neither sent nor saved (:mod:`fedmtl.models.own_state`).
        """
        with default_generators(derive_seed(0, "default generators", order.seed), self.device):
            update = self._do(order, observed)
            self._own.check()
        return update

    def _do(self, order: TrainOrder, observed: Observed | None) -> Update:
        client = order.client
        tasks = self._data.tasks_of(client)
        base = order.base.vector.to(self.device)
        half, observed = client_half(order.policy), observed or {}
        plan = half.plan(order, observed, functools.partial(self._class_accuracy, client, base))
        self._own.begin()
        self._vector.copy_(base if plan.start is None else plan.start)
        shard = self._data.shards[client]
        steps = local_steps(order, len(shard))
        trace = self._descend(order, plan, tasks, shard, base, steps)
        losses = _means(trace.losses)
        factors = (1.0,) * len(tasks) if order.task_factors is None else tuple(order.task_factors[t] for t in tasks)
        update = Update(
            client=client,
            job=order.job,
            base_version=order.base.version,
            delta=(self._vector - base).cpu(),
            examples=len(shard),
            steps=steps,
            tasks=tasks,
            task_losses=losses,
            mean_task_weights=_means(trace.weights) or factors,
            task_traces=_means(trace.kernel_sizes),
            task_sketches=torch.stack(trace.sketches).mean(0).cpu() if trace.sketches else None,
            learning_rate=plan.settings.learning_rate,
            momentum=plan.settings.momentum,
            terms=plan.terms,
            failure=None if all(map(math.isfinite, losses)) else self._failure(tasks, trace.losses),
        )
        if update.failure is None and (report := half.report(order, observed, plan, update, trace.losses)) is not None:
            update.terms, update.vectors = {**plan.terms, **report.terms}, report.vectors
        return update

    def _descend(
        self, order: TrainOrder, plan: Plan, tasks: tuple[int, ...], shard: Tensor, base: Tensor, steps: int
    ) -> _Trace:
        """Run the job's local steps, in place, on the trainer's vector."""
        network = self._network(tasks)
        balancer = self._balancer(order)
        cut = functools.partial(views_of, layout=self.layout, tasks=tasks)
        descent = Descent(
            network.values,
            plan.settings,
            cut(base) if plan.settings.proximal else None,
            None if plan.correction is None else cut(plan.correction.to(self.device)),
        )
        factors = None if order.task_factors is None else [order.task_factors[task] for task in tasks]
        trace = _Trace([], [], [], [])

        def gradients(inputs: Tensor, targets: Sequence[Tensor]) -> StepGradients:
            return balancer.gradients(network, inputs, targets, factors)

        step_of: Compute = gradients
        if (rule := plan.step_rule) is not None:
            bench = self._workbench(network, tasks, shard, factors)
            if (chosen := rule.start(bench)) is not None:
                shard = shard[chosen.cpu()]
            step_of = functools.partial(rule.gradients, gradients, network)
        if type(balancer).prepare is not Balancer.prepare:
            balancer.prepare(network, *self._examples(tasks, shard))
        for inputs, targets in self._minibatches(order, tasks, shard, steps):
            step = step_of(inputs, targets)
            self._own.gather()
            descent.step(step.shared, step.heads)
            trace.losses.append(step.losses)
            if step.weights is not None:
                trace.weights.append(step.weights)
            if step.kernel_sizes is not None:
                trace.kernel_sizes.append(step.kernel_sizes)
            if step.sketches is not None:
                trace.sketches.append(step.sketches)
        if rule is not None:
            rule.finish(bench)
            self._own.gather()
        return trace

    def _workbench(
        self, network: TaskNetwork, tasks: tuple[int, ...], shard: Tensor, factors: list[float] | None = None
    ) -> Workbench:
        features, targets = self._examples(tasks, shard)

        def losses() -> Tensor:
            with judging(self._model):
                outputs = self._model(features)
                return torch.stack(
                    [
                        self._data.tasks[task].example_losses(outputs[task], target)
                        for task, target in zip(tasks, targets, strict=True)
                    ]
                ).sum(0)

        pooled = self._train.features
        return Workbench(network, self._vector, self.layout, features, targets, losses, factors, pooled)

    def _examples(self, tasks: tuple[int, ...], index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features and the tasks' targets at these positions, on the device."""
        index = index.to(self.device)
        targets = [self._train.targets[task].index_select(0, index) for task in tasks]
        return self._train.features.index_select(0, index), targets

    def _minibatches(
        self, order: TrainOrder, tasks: tuple[int, ...], shard: Tensor, steps: int
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """So many batches, from as many freshly shuffled epochs as they take."""
        generator = self._batches.manual_seed(order.seed)
        size, examples = order.settings.batch_size, len(shard)
        used = min(examples, size * order.settings.batches(examples))
        remaining = steps
        while remaining > 0:
            shuffled = shard[torch.randperm(examples, generator=generator)]
            features, targets = self._examples(tasks, shuffled)
            if examples <= size:
                yield features, targets
                remaining -= 1
                continue
            for start in range(0, used, size):
                if remaining == 0:
                    break
                yield features[start : start + size], [target[start : start + size] for target in targets]
                remaining -= 1

    def _network(self, tasks: tuple[int, ...]) -> TaskNetwork:
        if tasks not in self._networks:
            self._networks[tasks] = TaskNetwork(self._model, [self._data.tasks[task] for task in tasks])
        return self._networks[tasks]

    def _balancer(self, order: TrainOrder) -> Balancer:
        key = _balancing_key(order.balancing)
        if key not in self._balancers:
            self._balancers[key] = build_balancer(order.balancing)
        balancer = self._balancers[key]
        if type(balancer).start_job is not Balancer.start_job:
            balancer.start_job(self._draws.manual_seed(order.seed ^ 1))
        return balancer

    def _failure(self, tasks: tuple[int, ...], losses: list[Tensor]) -> str:
        """Which loss was the first that was not finite: from there on, the others' are not, either."""
        for step, row in enumerate(torch.stack(losses).tolist(), start=1):
            for task, loss in zip(tasks, row, strict=True):
                if not math.isfinite(loss):
                    return f"loss of task {self._data.tasks[task].name!r} is {loss} in step {step}"
        return "losses are finite, but too large for their mean"

    def _class_accuracy(self, client: int, base: Tensor, chosen: Choice | None = None) -> ClassAccuracy:
        """The received model's accuracy for the first task with classes (:class:`clients.policies.base.Probe`)."""
        index = (self._data.shards if chosen else self._data.validation)[client].to(self.device)
        task = next((t for t in self._data.tasks_of(client) if self._data.tasks[t].kind != "regression"), None)
        if task is None or len(index) == 0:
            return ClassAccuracy((), ())
        if chosen:
            index = index[chosen(self._train.targets[task][index])]
        self._own.begin()
        self._vector.copy_(base)
        with judging(self._model):
            head = self._model.heads[self._data.tasks[task].key]
            output = head(self._model.backbone(self._train.features.index_select(0, index)))
        labels = self._train.targets[task].index_select(0, index).long()
        right = (output.argmax(1) if output.shape[1] > 1 else (output[:, 0] > 0).long()) == labels
        examples = torch.bincount(labels)
        correct = torch.bincount(labels[right], minlength=len(examples))
        present = examples > 0
        return ClassAccuracy(tuple(correct[present].tolist()), tuple(examples[present].tolist()))


class _Trace(NamedTuple):
    """What the balancer said in each step, shape [tasks] or [tasks, m] each; empty where it says nothing."""

    losses: list[Tensor]
    weights: list[Tensor]
    kernel_sizes: list[Tensor]
    sketches: list[Tensor]


def _means(steps: list[Tensor]) -> tuple[float, ...]:
    return tuple(torch.stack(steps).mean(0).tolist()) if steps else ()


def local_steps(order: TrainOrder, examples: int) -> int:
    """Steps that an order makes a client run: those it names, or those of its settings on so many examples.

    None at all where short batches are dropped and the shard has no other.
    """
    usual = order.settings.local_steps(examples)
    return order.steps if order.steps is not None and usual > 0 else usual


def _balancing_key(balancing: Balancing) -> tuple[str, str]:
    return balancing.name, repr(sorted(balancing.options.items()))
