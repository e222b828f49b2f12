"""Flower's nodes as workers of a simulation: the same bits as training in this process, whatever node did it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
import torch
from flwr.app import Context, Message

from clients.client_app import app
from fedmtl.protocol import Aggregation
from fedmtl.run_config import experiment_config
from simulations.experiment import Experiment
from simulations.fleet import SimulatedFleet
from simulations.runner import simulated_fleet
from simulations.workers.base import Job
from simulations.workers.grid import GridWorkers
from strategies.core.fleet import Fleet
from strategies.core.loop import Loop, Observer

EXPERIMENT = """
seed = 5
[data]
clients = 8
partition = "iid"
[model]
name = "mlp"
hidden = [4]
[strategy]
name = "fedqs"
buffer_size = 3
[balancing]
name = "ntkmtl-sr"
[training]
epochs = 1
"""


class Steps(Observer):
    """Keeps the server steps."""

    def __init__(self) -> None:
        self.steps: list[Aggregation] = []

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.steps.append(aggregation)


@pytest.fixture
def experiment() -> Experiment:
    return Experiment.from_config(experiment_config({"experiment": EXPERIMENT}))


@pytest.fixture
def grid(flower_grid: ModuleType) -> Any:
    """Three nodes for eight clients; replies come in a random order, one or none at a time."""

    class Shuffled(flower_grid.InProcessGrid):  # type: ignore[misc, name-defined]
        draws = random.Random(1)

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            ids = sorted(message_ids)
            return list(super().pull_messages([self.draws.choice(ids)])) if self.draws.random() < 0.8 else []

    return Shuffled(app, range(3), {"experiment": EXPERIMENT, "set": ""})


def run(experiment: Experiment, fleet: Fleet) -> tuple[torch.Tensor, list[Any]]:
    strategy, watcher = experiment.new_strategy(), Steps()
    Loop(strategy, fleet, [watcher]).run(lambda loop: "done" if loop.strategy.model.version >= 15 else None)
    fleet.close()
    fields = [
        (update.key, update.base_version, update.arrived_at, update.task_losses, update.task_traces, update.terms)
        for step in watcher.steps
        for update in step.updates
    ]
    return strategy.model.vector, [fields, [step.weights for step in watcher.steps]]


def on_grid(experiment: Experiment, grid: Any) -> SimulatedFleet:
    return SimulatedFleet(experiment.data, experiment.devices, GridWorkers(grid, poll=0.0001), experiment.layout)


def test_a_run_on_flowers_nodes_gives_the_bits_of_a_run_in_this_process(experiment: Experiment, grid: Any) -> None:
    there, there_steps = run(experiment, on_grid(experiment, grid))
    here, here_steps = run(experiment, simulated_fleet(experiment))
    assert torch.equal(there, here)
    assert there_steps == here_steps
    assert not grid.crowded, "a node had two messages in flight"
    assert any(update[5] for update in here_steps[0]), "no client was typed, so nothing was carried along"


def jobs(experiment: Experiment, arrivals: dict[int, float]) -> list[Job]:
    fleet = simulated_fleet(experiment)
    orders = experiment.new_strategy().orders(
        experiment.new_strategy().begin(fleet.clients(), 0.0).decision.assignments
    )
    return [Job(order, {}, arrivals[order.client]) for order in orders if order.client in arrivals]


def test_what_is_needed_first_is_sent_first_and_what_is_discarded_never(experiment: Experiment, grid: Any) -> None:
    trained = []

    def note(message: Message, context: Context) -> Message:
        trained.append(message.metadata.message_id)
        return grid.work(message, context)  # type: ignore[no-any-return]

    grid.online = {100}
    grid.behaviour[100] = note
    workers = GridWorkers(grid, poll=0.0001)
    first, *rest = jobs(experiment, {0: 1.0, 1: 9.0, 2: 5.0, 3: 2.0})
    workers.submit([first, *rest])
    workers.discard(rest[1].order.key)
    assert workers.result(rest[0].order.key).key == (1, 0), "asked for ahead of its time"
    assert workers.result(rest[2].order.key).key == (3, 0)
    assert workers.result(first.order.key).key == (0, 0)
    assert len(trained) == 3


def test_a_node_that_fails_ends_the_simulation(experiment: Experiment, grid: Any) -> None:
    for node in grid.contexts:
        grid.behaviour[node] = lambda message, context: grid.error(message, 2, "MemoryError")
    workers = GridWorkers(grid, poll=0.0001)
    (job,) = jobs(experiment, {4: 1.0})
    workers.submit([job])
    with pytest.raises(RuntimeError, match=r"failed at job 0 of client 4: error 2: MemoryError"):
        workers.result(job.order.key)


def test_an_engine_without_nodes_is_a_fault(grid: Any) -> None:
    grid.online = set()
    with pytest.raises(RuntimeError, match=r"registered no node within 0.01 s"):
        GridWorkers(grid, patience=0.01)
