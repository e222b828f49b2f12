"""What travels to a trainer in another process and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clients.trainer import LocalTrainer
from fedmtl.data.federated import FederatedData
from fedmtl.protocol import GlobalModel
from simulations.workers.remote import CohortTrainer, pack_data, pack_jobs, unpack_data, unpack_update


def test_data_come_back_as_they_were_with_the_examples_on_the_same_memory(ragged: FederatedData) -> None:
    again = unpack_data(pack_data(ragged))
    assert torch.equal(again.train.features, ragged.train.features)
    assert again.train.features.data_ptr() == ragged.train.features.data_ptr()
    assert all(torch.equal(a, b) for a, b in zip(again.train.targets, ragged.train.targets, strict=True))
    assert again.tasks == ragged.tasks
    for client in range(ragged.clients):
        assert torch.equal(again.shards[client], ragged.shards[client])
        assert torch.equal(again.validation[client], ragged.validation[client])
        assert again.tasks_of(client) == ragged.tasks_of(client)


@pytest.mark.usefixtures("one_thread")
def test_a_cohort_trainer_trains_as_a_trainer_does_even_from_memory_that_is_not_aligned(
    ragged: FederatedData, start: GlobalModel, new_model: Callable[..., Any], jobs_of: Any, bits: Any
) -> None:
    jobs = jobs_of(start, range(5), weight_decay=0.01, proximal=0.1)
    plain, tensors = pack_jobs(jobs)
    assert len(tensors) == 1, "the orders share their base"
    arrays = []
    for tensor in tensors.values():
        array = np.empty(tensor.numel() + 1, dtype=np.float32)[1:]
        array[:] = tensor.numpy()
        arrays.append(array)
    remote = CohortTrainer(new_model(2), pack_data(ragged), "cpu")
    updates = [unpack_update(result) for result in remote.train(plain, list(tensors), *arrays)]
    local = LocalTrainer(new_model(3), ragged)
    assert [bits(update) for update in updates] == [bits(local.train(job.order, job.observed)) for job in jobs]
