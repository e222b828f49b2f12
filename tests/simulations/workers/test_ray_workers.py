"""Training on Ray gives the bits of training in this process."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.trainer import LocalTrainer
from fedmtl.data.federated import FederatedData
from fedmtl.errors import UserError
from fedmtl.models import MultiTaskModel
from fedmtl.protocol import Aggregation, GlobalModel, JobKey, TrainSettings
from simulations.devices.profile import Devices
from simulations.fleet import SimulatedFleet
from simulations.workers.base import Workers
from simulations.workers.cluster import _INLINE
from simulations.workers.inline import InlineWorkers
from simulations.workers.ray import RayWorkers
from strategies.core.loop import Loop, Observer
from strategies.recipes.catalogue import build_strategy

NewModel = Callable[[int], MultiTaskModel]


@pytest.fixture(scope="module", params=[1, 2])
def workers(
    request: pytest.FixtureRequest, ragged: FederatedData, new_model: NewModel, one_ray: Any
) -> Iterator[RayWorkers]:
    one_ray.open()
    made = RayWorkers(new_model(5), ragged, count=request.param)
    yield made
    made.close()


@pytest.fixture
def inline(ragged: FederatedData, new_model: NewModel, one_thread: None) -> InlineWorkers:
    return InlineWorkers(LocalTrainer(new_model(9), ragged))


class Diary(Observer):
    """Everything that is aggregated, bit by bit."""

    def __init__(self, bits: Any) -> None:
        self.lines: list[object] = []
        self._bits = bits

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        updates = [self._bits(update) for update in aggregation.updates]
        self.lines.append((aggregation.version, aggregation.time, aggregation.weights, aggregation.staleness, updates))


def run(data: FederatedData, start: GlobalModel, workers: Workers, bits: Any) -> tuple[Tensor, list[object]]:
    """An asynchronous run of FedQS; the workers stay open."""
    strategy, diary = build_strategy("fedqs", {"buffer_size": 3}), Diary(bits)
    strategy.initialise(start, TrainSettings(epochs=1, batch_size=10), seed=4)
    devices = Devices(data.clients, 0, seconds_per_order=np.linspace(1.0, 20.0, data.clients))
    loop = Loop(strategy, SimulatedFleet(data, devices, workers, start.layout), [diary])
    loop.run(lambda loop: "enough" if loop.strategy.model.version >= 12 else None)
    for key in list(loop.fleet._pending):  # type: ignore[attr-defined]
        workers.discard(key)
    return strategy.model.vector, diary.lines


@pytest.mark.slow("ray")
def test_updates_have_the_bits_of_training_in_this_process(
    workers: RayWorkers, inline: InlineWorkers, start: GlobalModel, jobs_of: Any, bits: Any
) -> None:
    jobs = jobs_of(start, range(24), job=50, proximal=0.1, momentum=0.5)
    for each in (inline, workers):
        each.submit(jobs)
    keys = [job.order.key for job in sorted(jobs, key=lambda job: job.arrival)]
    assert [bits(workers.result(key)) for key in keys] == [bits(inline.result(key)) for key in keys]


@pytest.mark.slow("ray")
def test_a_run_has_the_records_and_the_final_bits_of_a_run_in_this_process(
    workers: RayWorkers, inline: InlineWorkers, ragged: FederatedData, start: GlobalModel, bits: Any
) -> None:
    vector, records = run(ragged, start, workers, bits)
    expected_vector, expected_records = run(ragged, start, inline, bits)
    assert records == expected_records
    assert torch.equal(vector, expected_vector)


@pytest.mark.slow("ray")
def test_results_can_be_asked_for_in_any_order_and_once(workers: RayWorkers, start: GlobalModel, jobs_of: Any) -> None:
    jobs = jobs_of(start, range(6), job=100)
    workers.submit(jobs)
    for job in sorted(jobs, key=lambda job: -job.arrival):
        assert workers.result(job.order.key).key == job.order.key
    with pytest.raises(KeyError):
        workers.result(JobKey(0, 100))


@pytest.mark.slow("ray")
def test_vectors_and_updates_are_not_kept_when_no_order_needs_them(
    ragged: FederatedData, start: GlobalModel, new_model: NewModel, jobs_of: Any
) -> None:
    room_for_three = 3 * start.vector.nbytes
    workers = RayWorkers(new_model(0), ragged, count=1, ahead_bytes=room_for_three)
    jobs = jobs_of(start, range(12))
    workers.submit(jobs)
    for job in jobs[:8]:
        workers.result(job.order.key)
    assert (len(workers._vectors), workers._vectors.stored) == (1, 1)
    for job in jobs[8:]:
        workers.discard(job.order.key)
    workers.submit(last := jobs_of(start, range(1), job=1))
    workers.result(last[0].order.key)
    assert len(workers._vectors) == 0
    assert not workers._trained
    workers.close()


@pytest.mark.slow("ray")
def test_only_this_machine_can_reach_a_ray_that_was_started_for_workers(workers: RayWorkers) -> None:
    import ray

    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")


@pytest.mark.slow("ray")
def test_where_one_ray_keeps_its_objects_is_not_told_to_the_next(workers: RayWorkers) -> None:
    assert sorted(_INLINE) == ["max_direct_call_object_size", "task_rpc_inlined_bytes_limit"]


@pytest.mark.slow("ray")
def test_a_gpu_where_there_is_none_is_refused(workers: RayWorkers, ragged: FederatedData, new_model: NewModel) -> None:
    import ray

    if ray.cluster_resources().get("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="Ray sees no GPU"):
        RayWorkers(new_model(0), ragged, count=1, device="cuda")


def test_without_ray_the_error_says_how_to_get_it(
    ragged: FederatedData, new_model: NewModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray is not installed.*pip install.*engine\.workers"):
        RayWorkers(new_model(0), ragged, count=1)


def test_an_address_where_no_cluster_answers_is_refused(ragged: FederatedData, new_model: NewModel) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Ray cluster answers at '{address}'"):
            RayWorkers(new_model(0), ragged, count=1, address=address)
