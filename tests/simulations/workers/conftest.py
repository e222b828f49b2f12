"""A small federation of unequal clients, and orders for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import MultiTaskModel, build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings, Update
from fedmtl.randomness import derive_seed
from fedmtl.state import split, update_state
from fedmtl.tasks import Task
from simulations.workers.base import Job

CLIENTS, FEATURES, HIDDEN = 24, 40, 7000
TASKS = (Task("kind", "classification", 3), Task("flag", "binary"), Task("size", "regression", loss_factor=2.0))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Workers train on one thread, and so does this process for the sake of comparison."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ragged() -> FederatedData:
    """24 clients with 2 to 48 examples; every fourth lacks a task."""
    generator = torch.Generator().manual_seed(1)
    sizes = [3 + 2 * client for client in range(CLIENTS)]
    total = sum(sizes)
    targets = (
        torch.randint(0, 3, (total,), generator=generator),
        torch.randint(0, 2, (total,), generator=generator).float(),
        torch.randn(total, generator=generator),
    )
    train = Examples(torch.randn(total, FEATURES, generator=generator), targets)
    parts = np.split(np.arange(total), np.cumsum(sizes)[:-1])
    owners = np.ones((CLIENTS, 3), dtype=bool)
    owners[::4, 1] = False
    validation = Shards([part[:1] for part in parts])
    return FederatedData(TASKS, train, train.take(torch.arange(9)), Shards([p[1:] for p in parts]), validation, owners)


@pytest.fixture(scope="session")
def new_model() -> Callable[[int], MultiTaskModel]:
    """Makes a model for `ragged`, wide enough for its vector to be stored and not sent along with every message."""
    return lambda seed: build_model("mlp", {"hidden": (HIDDEN,)}, (FEATURES,), TASKS, seed)


@pytest.fixture
def start(new_model: Callable[[int], MultiTaskModel]) -> GlobalModel:
    model = new_model(0)
    layout = ParameterLayout.of(model)
    return GlobalModel(0, layout.pack(model), layout)


def _jobs_of(base: GlobalModel, clients: range, job: int = 0, **settings: float) -> list[Job]:
    chosen = dataclasses.replace(TrainSettings(epochs=2, batch_size=10), **settings)
    jobs = []
    for client in clients:
        seed = derive_seed(3, "job", client, job)
        order = TrainOrder(client, job, base, None, chosen, None, Balancing("equal"), "plain", {}, {}, seed)
        jobs.append(Job(order, {}, float((7 * client) % CLIENTS)))
    return jobs


@pytest.fixture(scope="session")
def jobs_of() -> Callable[..., list[Job]]:
    """Makes a job for each of some clients; they do not arrive in the order of their numbers."""
    return _jobs_of


def _bits(update: Update) -> tuple[str, list[bytes]]:
    plain, tensors = split(update_state(update))
    return repr(plain), [tensor.numpy().tobytes() for tensor in tensors.values()]


@pytest.fixture(scope="session")
def bits() -> Callable[[Update], tuple[str, list[bytes]]]:
    """Everything in an update, bit by bit."""
    return _bits
