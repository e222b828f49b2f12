"""Jobs that fail on Ray, or end their actor: they are named, and nobody else suffers. Real exceptions, real deaths."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.errors import DataError
from fedmtl.models import MultiTaskModel
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, JobKey
from fedmtl.tasks import Task
from simulations.workers.base import Job
from simulations.workers.ray import RayWorkers, TrainingError

CLIENTS = 24
TASKS = (Task("kind", "classification", 3),)
RAISES, REFUSES, KILLS, KILLS_ONCE = 5, 9, 13, 17


class Haunted(nn.Module):
    """Notes in a file whom it trains (an example's first feature is its client), and goes wrong for some of them."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 4)
        self.directory = directory

    def forward(self, inputs: Tensor) -> Tensor:
        client = int(inputs[0, 0])
        with (self.directory / "trained").open("a") as file:
            file.write(f"{client}\n")
        if client == RAISES:
            raise RuntimeError("a bad day")
        if client == REFUSES:
            raise DataError("the shard is unreadable")
        if client == KILLS or (client == KILLS_ONCE and not (self.directory / "died").exists()):
            if client == KILLS_ONCE:
                (self.directory / "died").touch()
            os._exit(1)
        return torch.relu(self.inner(inputs))


@pytest.fixture
def data() -> FederatedData:
    """One example per client."""
    features = torch.stack([torch.arange(CLIENTS).float(), torch.ones(CLIENTS)], dim=1)
    train = Examples(features, (torch.arange(CLIENTS) % 3,))
    nothing = Shards([np.empty(0, dtype=np.int64)] * CLIENTS)
    shards = Shards(np.split(np.arange(CLIENTS), CLIENTS))
    return FederatedData(TASKS, train, train, shards, nothing, np.ones((CLIENTS, 1), dtype=bool))


@pytest.fixture
def model(tmp_path: Path) -> MultiTaskModel:
    return MultiTaskModel(Haunted(tmp_path), 4, TASKS)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, one_ray: Any) -> Iterator[None]:
    """A Ray that somebody else started, elsewhere, and that knows nothing of our packages."""
    import ray
    from ray import cloudpickle

    one_ray.close()
    # Actors cannot import a test.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        patch.delenv("PYTHONPATH", raising=False)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    assert ray.is_initialized(), "workers must not end a Ray that they did not start"
    ray.shutdown()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def workers(data: FederatedData, model: MultiTaskModel, others: None) -> Iterator[RayWorkers]:
    made = RayWorkers(model, data, count=2)
    yield made
    made.close()


@pytest.fixture
def jobs(model: MultiTaskModel, jobs_of: Any) -> list[Job]:
    """A job of one step for each client."""
    layout = ParameterLayout.of(model)
    made: list[Job] = jobs_of(GlobalModel(0, layout.pack(model), layout), range(CLIENTS), epochs=1)
    return made


def trained(directory: Path) -> list[int]:
    return sorted(int(line) for line in (directory / "trained").read_text().split())


@pytest.mark.slow("ray")
def test_faults_and_deaths_hit_only_their_own_jobs_and_name_them(
    workers: RayWorkers, jobs: list[Job], tmp_path: Path
) -> None:
    workers.submit(jobs)
    with pytest.raises(TrainingError, match=r"client 5, job 0: .*a bad day"):
        workers.result(JobKey(RAISES, 0))
    with pytest.raises(DataError, match="client 9, job 0: the shard is unreadable"):
        workers.result(JobKey(REFUSES, 0))
    with pytest.raises(TrainingError, match="client 13, job 0: its Ray actor died 3 times"):
        workers.result(JobKey(KILLS, 0))
    for client in set(range(CLIENTS)) - {RAISES, REFUSES, KILLS}:
        assert workers.result(JobKey(client, 0)).failure is None
    assert trained(tmp_path).count(KILLS) == 3
    assert trained(tmp_path).count(KILLS_ONCE) == 2


@pytest.mark.slow("ray")
def test_jobs_are_trained_once_and_discarded_ones_not_at_all(
    workers: RayWorkers, jobs: list[Job], tmp_path: Path
) -> None:
    # So few that nothing goes out before a result is asked for.
    workers.submit(jobs[3:4])
    workers.discard(JobKey(3, 0))
    workers.submit(jobs[:3])
    for client in range(3):
        workers.result(JobKey(client, 0))
    workers.submit(jobs[18:])
    for client in reversed(range(18, CLIENTS)):
        workers.result(JobKey(client, 0))
    assert trained(tmp_path) == [0, 1, 2, *range(18, CLIENTS)]
