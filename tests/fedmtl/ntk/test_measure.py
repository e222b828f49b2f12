"""Measurements of a model on clients' data, and where they are taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmtl.config import parse_config
from fedmtl.data.build import build_data
from fedmtl.data.federated import FederatedData
from fedmtl.models import MultiTaskModel, build_model
from fedmtl.ntk import Kernels
from fedmtl.ntk.groups import BY_SKEW, BY_SPEED, client_groups
from fedmtl.ntk.instrument import Settings, examine
from fedmtl.ntk.measure import ALL_TASKS, KernelProbe, client_matrix, measure_clients
from fedmtl.ntk.sampling import client_sample, pooled_sample, skew_halves, speed_halves, spread_clients
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel

AT = {"version": 3, "time": 7.5, "seed": 0}


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return build_data(parse_config({"data": {"clients": 12}}))


@pytest.fixture(scope="module")
def divided() -> FederatedData:
    """Clients with one task each."""
    return build_data(parse_config({"data": {"clients": 8, "partition": "iid"}, "tasks": {"ownership": "disjoint"}}))


def fresh(data: FederatedData) -> tuple[MultiTaskModel, GlobalModel]:
    model = build_model("mlp", {"hidden": (8,)}, data.input_shape, data.tasks, 0)
    layout = ParameterLayout.of(model)
    return model, GlobalModel(3, layout.pack(model), layout)


def test_the_pooled_sample_holds_training_examples_of_the_clients_they_are_said_to_be_of(data: FederatedData) -> None:
    sample = pooled_sample(data, 50, seed=0)
    assert len(set(sample.positions.tolist())) == 50
    for position, client in zip(sample.positions.tolist(), sample.clients.tolist(), strict=True):
        assert position in data.shards[client].tolist()
    assert torch.equal(sample.positions, pooled_sample(data, 50, seed=0).positions)
    assert not torch.equal(sample.positions, pooled_sample(data, 50, seed=1).positions)
    assert len(pooled_sample(data, 10**6, seed=0).positions) == data.shards.sizes.sum()


def test_a_client_sample_takes_no_more_than_a_client_has(data: FederatedData) -> None:
    chosen = np.array([5, 2])
    sample = client_sample(data, chosen, 40, seed=0)
    for client in chosen.tolist():
        mine = sample.positions[sample.members(client)]
        assert len(mine) == min(40, data.shards.size(client))
        assert set(mine.tolist()) <= set(data.shards[client].tolist())
    assert sample.clients[0] == 5


def test_clients_are_chosen_evenly_from_the_fastest_to_the_slowest(data: FederatedData) -> None:
    seconds = np.arange(12.0)[::-1]
    assert spread_clients(data, seconds, 3).tolist() == [11, 5, 0]
    assert spread_clients(data, None, 99).tolist() == list(range(12))


def test_halves_of_the_clients_by_speed_and_by_skew(data: FederatedData, divided: FederatedData) -> None:
    fast, slow = speed_halves(np.array([3.0, 1.0, 2.0])).values()
    assert (fast.tolist(), sorted(slow.tolist())) == ([1], [0, 2])
    assert speed_halves(np.ones(4)) == {}
    less, more = skew_halves(data).values()
    assert sorted([*less.tolist(), *more.tolist()]) == list(range(12))


def test_a_measurement_has_a_row_for_each_task_and_kind_of_kernel(data: FederatedData) -> None:
    model, version = fresh(data)
    rows = KernelProbe(model, data, 0, examples=20).measure(version, 7.5).tasks
    names = [task.name for task in data.tasks]
    assert [(row.kernel, row.task) for row in rows] == [(k, n) for k in ("outputs", "losses") for n in names]
    for index, row in enumerate(rows[4:]):
        assert (row.version, row.time, row.client, row.examples, row.trace_error) == (3, 7.5, None, 20, 0.0)
        assert len(row.eigenvalues) == 20
        assert list(row.eigenvalues) == sorted(row.eigenvalues, reverse=True)
        assert sum(row.eigenvalues) == pytest.approx(row.trace, rel=1e-9)
        assert row.alignment[index] == pytest.approx(1.0)
        assert row.cosine[index] == pytest.approx(1.0)
        assert row.cosine[0] == pytest.approx(rows[4].cosine[index])


def test_a_groups_kernel_is_that_of_its_own_examples(data: FederatedData) -> None:
    model, version = fresh(data)
    groups = client_groups(data, np.arange(12.0))
    assert {name: len(clients) for name, clients in groups.items()} == dict.fromkeys((*BY_SPEED, *BY_SKEW), 6)
    probe = KernelProbe(model, data, 0, examples=30, groups=groups)
    tasks, rows = probe.measure(version, 7.5)
    assert [(row.task, row.group) for row in rows] == [(t.name, group) for t in data.tasks for group in groups]
    for row in rows:
        mine = probe.sample.positions[np.isin(probe.sample.clients, groups[row.group])]
        index = [task.name for task in data.tasks].index(row.task)
        kernels = Kernels(model, data.tasks, data.train.take(mine))
        alone = kernels.spectrum(kernels.losses(index))
        assert (row.version, row.time, row.examples) == (3, 7.5, len(mine))
        np.testing.assert_allclose(row.eigenvalues, alone.eigenvalues, rtol=1e-9, atol=1e-9 * alone.top)
        loss = data.tasks[index].mean_loss(kernels.tangents.outputs[:, head(data, index)], target(data, index, mine))
        assert row.loss == pytest.approx(float(loss))
    whole = {row.task: row.trace for row in tasks if row.kernel == "losses"}
    for halves in (BY_SPEED, BY_SKEW):
        for name, trace in whole.items():
            assert sum(row.trace for row in rows if row.task == name and row.group in halves) == pytest.approx(trace)


def head(data: FederatedData, index: int) -> slice:
    start = sum(task.outputs for task in data.tasks[:index])
    return slice(start, start + data.tasks[index].outputs)


def target(data: FederatedData, index: int, positions: torch.Tensor) -> torch.Tensor:
    found = data.train.targets[index][positions]
    return found.double() if found.is_floating_point() else found


def test_groups_without_an_example_or_a_speed_have_no_rows(data: FederatedData) -> None:
    model, version = fresh(data)
    assert KernelProbe(model, data, 0, examples=20).measure(version, 0.0).groups == []
    assert set(client_groups(data, None)) == set(client_groups(data, np.ones(12))) == set(BY_SKEW)
    nobody = {"fast": np.array([], dtype=np.int64), "slow": np.arange(12)}
    rows = KernelProbe(model, data, 0, examples=20, groups=nobody).measure(version, 0.0).groups
    assert {row.group for row in rows} == {"slow"}


def test_the_same_version_gives_the_same_bits_whatever_was_measured_before(data: FederatedData) -> None:
    model, version = fresh(data)
    moved = GlobalModel(4, version.vector + 0.1, version.layout)
    probe = KernelProbe(model, data, 0, examples=20)
    once = probe.measure(version, 0.0)
    assert probe.measure(moved, 0.0) != once
    assert KernelProbe(fresh(data)[0], data, 0, examples=20).measure(version, 0.0) == once


def test_clients_rows_are_those_of_their_own_examples(data: FederatedData) -> None:
    model, _ = fresh(data)
    sample = client_sample(data, np.arange(4), 10, seed=0)
    rows = measure_clients(model, data, sample, **AT)
    for row in rows:
        assert row.client is not None
        mine = data.train.take(sample.positions[sample.members(row.client)])
        kernels = Kernels(model, data.tasks, mine)
        task = None if row.task == ALL_TASKS else [t.name for t in data.tasks].index(row.task)
        found = kernels.spectrum(kernels.outputs(task) if row.kernel == "outputs" else kernels.losses(task))
        assert row.trace == pytest.approx(found.trace, rel=1e-9)
        assert row.top == pytest.approx(found.top, rel=1e-9)
    matrix = client_matrix(rows, ALL_TASKS, "alignment")
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(np.diag(matrix), 1.0)
    assert matrix.min() >= 0


def test_a_client_has_rows_for_its_own_tasks_alone_and_its_sum_is_of_these(divided: FederatedData) -> None:
    model, _ = fresh(divided)
    sample = client_sample(divided, np.arange(8), 10, seed=0)
    rows = measure_clients(model, divided, sample, **AT)
    for client in range(8):
        (task,) = (divided.tasks[index].name for index in divided.tasks_of(client))
        mine = [row for row in rows if row.client == client and row.kernel == "losses"]
        assert [row.task for row in mine] == [task, ALL_TASKS]
        assert mine[0].trace == pytest.approx(mine[1].trace, rel=1e-12)
        others = [value for place, value in enumerate(mine[0].alignment) if task not in _tasks(divided, place)]
        assert others
        assert set(others) == {None}


def _tasks(data: FederatedData, client: int) -> list[str]:
    return [data.tasks[index].name for index in data.tasks_of(client)]


def test_an_examination_says_everything_about_a_version(data: FederatedData) -> None:
    model, version = fresh(data)
    done: list[str] = []
    settings = Settings(examples=24, clients=3, steps=4)
    found = examine(model, version, data, 0, settings, seconds=np.arange(12.0), progress=done.append)
    assert found.clients == [0, 6, 11] or found.clients == [0, 5, 11]
    assert [decay.task.name for decay in found.decays] == [task.name for task in data.tasks]
    assert all(decay.measured.shape == (5, 24) for decay in found.decays)
    assert sum(len(places) for places in found.groups["speed"].values()) == 24
    assert len(done) == 2 + len(data.tasks)
    assert torch.equal(version.layout.pack(model), version.vector)


def test_a_task_that_no_chosen_client_owns_has_no_rows_of_clients(divided: FederatedData) -> None:
    model, _ = fresh(divided)
    sample = client_sample(divided, np.arange(2), 10, seed=0)
    owned = {name for client in (0, 1) for name in _tasks(divided, client)}
    assert len(owned) < len(divided.tasks)
    assert {row.task for row in measure_clients(model, divided, sample, **AT)} == owned | {ALL_TASKS}


@pytest.mark.parametrize("factor", [1e20, 1e37, float("nan")])
@pytest.mark.parametrize("memory", [1 << 30, 20_000])
def test_a_model_beyond_all_numbers_has_rows_without_numbers(data: FederatedData, factor: float, memory: int) -> None:
    """A run that diverges ends with a message about that, not about eigenvalues."""
    model, version = fresh(data)
    beyond = GlobalModel(4, version.vector * factor, version.layout)
    rows = KernelProbe(model, data, 0, examples=20, memory=memory).measure(beyond, 0.0).tasks
    assert len(rows) == 8
    assert not np.isnan(factor) or all(np.isnan([row.trace, row.top]).all() for row in rows)
    assert all(row.effective_rank is None or row.effective_rank >= 1 - 1e-9 for row in rows)
