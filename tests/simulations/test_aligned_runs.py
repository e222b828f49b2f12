"""FedNTK-trace with aligned heads in whole runs: its bits wherever it trains, its cost, and clients with bad data."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData
from fedmtl.protocol import GlobalModel, TrainOrder, Update
from simulations import Experiment, run
from tests.interrupting import InterruptAt

SMALL = [
    "data.clients=12",
    "tasks.ownership=skewed",
    "strategy.name=fedbuff",
    "strategy.buffer_size=4",
    "balancing.name=fedntk-trace",
    "training.epochs=1",
    "records.checkpoint_every=3",
    "stop.versions=12",
]


def model_of(directory: Path) -> torch.Tensor:
    values = load_file(directory / "model.safetensors")
    return torch.cat([values[name].reshape(-1) for name in sorted(values)])


@pytest.mark.parametrize("workers", ["inline", pytest.param("ray", marks=pytest.mark.slow("ray"))])
def test_a_run_gives_the_same_bits_on_any_workers_and_after_an_interruption(tmp_path: Path, workers: str) -> None:
    run(Experiment.load(None, SMALL), tmp_path / "uncut", pictures=False)
    there = Experiment.load(None, [*SMALL, f"engine.workers={workers}"])
    assert run(there, tmp_path / "cut", pictures=False, observers=[InterruptAt(20)]).interrupted
    assert not run(there, tmp_path / "cut", resume=True, pictures=False).interrupted
    assert torch.equal(model_of(tmp_path / "cut"), model_of(tmp_path / "uncut"))


def an_order() -> tuple[Experiment, TrainOrder]:
    """The first order, to a client that owns several tasks."""
    experiment = Experiment.load(None, SMALL)
    strategy = experiment.new_strategy()
    orders = strategy.orders(strategy.begin(range(12), 0.0).decision.assignments)
    return experiment, next(order for order in orders if len(experiment.data.tasks_of(order.client)) > 1)


def trained_with(task: int, value: float) -> tuple[Update, Update, GlobalModel]:
    """A job on data in which one target of a task is this value, the same job on sound data, and its model."""
    experiment, order = an_order()
    data = experiment.data
    client = next(c for c in range(12) if {0, task} <= set(data.tasks_of(c)))
    order = dataclasses.replace(order, client=client)
    well = LocalTrainer(experiment.new_model(), data).train(order)
    targets = [target.clone() for target in data.train.targets]
    targets[task][data.shards[client][0]] = value
    train = Examples(data.train.features, tuple(targets))
    sick = FederatedData(data.tasks, train, data.test, data.shards, data.validation, data.owners)
    return LocalTrainer(experiment.new_model(), sick).train(order), well, order.base


def test_a_loss_beyond_all_numbers_makes_the_update_a_failure_that_names_the_task() -> None:
    update, well, _ = trained_with(2, 3e38)
    assert well.failure is None
    assert update.failure is not None
    assert "'ink'" in update.failure


def test_an_outlier_of_an_absolute_error_moves_its_head_no_further_than_the_clip_and_starves_no_other() -> None:
    update, well, base = trained_with(3, 1e30)
    assert update.failure is None
    assert torch.isfinite(update.delta).all()
    layout = base.layout
    # The alignment is taken back, for it does not lower the loss; what is left are steps of 0.1 times at most 1.
    assert update.delta[layout.heads[3]].norm() <= 0.1 * update.steps * (1 + 1e-5)
    assert update.delta[layout.heads[0]].norm() > 0.5 * well.delta[layout.heads[0]].norm()


def test_a_job_depends_on_its_order_alone_and_moves_no_head_that_the_client_lacks() -> None:
    experiment, order = an_order()
    one, other = (LocalTrainer(experiment.new_model(), experiment.data) for _ in range(2))
    other.train(dataclasses.replace(order, seed=order.seed + 1))
    first, again = one.train(order), other.train(order)
    assert torch.equal(first.delta, again.delta)
    assert first.task_traces == again.task_traces
    for task, head in enumerate(order.base.layout.heads):
        assert (first.delta[head].count_nonzero() > 0) == (task in first.tasks)


def test_aligned_heads_have_smaller_kernels() -> None:
    """What is measured is the backbone's task, and not how far its head was left behind: here, at random heads."""
    experiment, order = an_order()
    trainer = LocalTrainer(experiment.new_model(), experiment.data)
    options = {**order.balancing.options, "align": 0}
    left = trainer.train(dataclasses.replace(order, balancing=dataclasses.replace(order.balancing, options=options)))
    aligned = trainer.train(order)
    assert all(math.isfinite(trace) and trace > 0.0 for trace in aligned.task_traces)
    assert aligned.task_losses < left.task_losses
