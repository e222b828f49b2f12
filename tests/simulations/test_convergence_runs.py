"""Runs whose server steps are measured: the same bits, the figures of what happened, and null where there are none."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from fedmtl.client_types import TYPE_NUMBERS
from fedmtl.errors import CheckpointError
from fedmtl.models.multitask import judging
from fedmtl.protocol import Aggregation
from fedmtl.records.schemas import AGGREGATIONS, CONVERGENCE
from simulations import Experiment, run
from simulations.fleet import SimulatedFleet
from simulations.runner import new_workers
from strategies.core.loop import Loop, Observer
from tests.interrupting import InterruptAt

SMALL = ["name=small", "data.clients=10", "records.evaluate_every=4", "records.checkpoint_every=3", "devices.ratio=5"]
QS = ("strategy.buffer_size=3", "stop.versions=10")
ON = "records.convergence=true"


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


class Models(Observer):
    """Keeps every version, and what went into it."""

    def __init__(self) -> None:
        self.vectors: list[Tensor] = []
        self.steps: list[Aggregation] = []

    def on_start(self, loop: Loop) -> None:
        self.vectors.append(loop.strategy.model.vector)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.vectors.append(loop.strategy.model.vector)
        self.steps.append(aggregation)


@pytest.fixture(scope="module")
def seen() -> Models:
    return Models()


@pytest.fixture(scope="module")
def measured(seen: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("measured") / "run"
    run(small(*QS, ON), directory, pictures=False, observers=[seen])
    return directory


def table(directory: Path) -> pa.Table:
    return pq.read_table(directory / "aggregations.parquet")


def test_without_the_switch_there_are_the_same_bits_and_none_of_the_columns(measured: Path, tmp_path: Path) -> None:
    run(small(*QS), tmp_path / "plain", pictures=False)
    for name in ("updates.parquet", "evaluations.parquet", "model.safetensors"):
        assert (tmp_path / "plain" / name).read_bytes() == (measured / name).read_bytes(), name
    assert table(tmp_path / "plain").schema == AGGREGATIONS
    assert table(measured).schema == pa.schema([*AGGREGATIONS, *CONVERGENCE])
    assert table(measured).select(AGGREGATIONS.names).equals(table(tmp_path / "plain"))
    assert small(*QS).digest == small(*QS, ON).digest


def test_the_rows_say_how_far_the_run_moved_and_how_alike_its_clients_were(measured: Path, seen: Models) -> None:
    rows = table(measured).to_pylist()
    assert len(rows) == 10
    for row, step, before, after in zip(rows, seen.steps, seen.vectors[:-1], seen.vectors[1:], strict=True):
        deltas = np.stack([update.delta.double().numpy() for update in step.updates])
        moved = (after - before).double().numpy()
        lengths = np.linalg.norm(deltas, axis=1)
        cosines = deltas @ moved / lengths / np.linalg.norm(moved)
        assert row["step_norm"] == pytest.approx(np.linalg.norm(moved), rel=1e-6)
        assert row["update_norm"] == pytest.approx(lengths.mean(), rel=1e-6)
        assert row["step_cosine"] == pytest.approx(cosines.mean(), rel=1e-6)
        rms = np.sqrt((lengths**2).mean())
        assert row["drift"] == pytest.approx(rms / np.linalg.norm(before.double().numpy()), rel=1e-6)


def test_shares_are_those_of_the_weights_in_the_table_of_updates(measured: Path) -> None:
    updates = pq.read_table(measured / "updates.parquet").to_pylist()
    seconds = pq.read_table(measured / "devices.parquet")["seconds"].to_numpy()
    fast = set(np.argsort(seconds, kind="stable")[:5].tolist())
    typed = 0
    for row in table(measured).to_pylist():
        mine = [update for update in updates if update["applied_version"] == row["version"]]
        total = sum(update["weight"] for update in mine)
        assert row["share_fast"] == pytest.approx(sum(u["weight"] for u in mine if u["client"] in fast) / total)
        types = {u["client_type"] for u in mine} - {""}
        typed += bool(types)
        for name in TYPE_NUMBERS:
            share = sum(u["weight"] for u in mine if u["client_type"] == name) / total
            assert row[f"share_{name}"] == (pytest.approx(share) if types else None)
    assert 0 < typed < 10


def test_the_variance_of_the_loss_is_there_where_a_version_was_evaluated(measured: Path, seen: Models) -> None:
    found = {row["version"]: row["loss_variance"] for row in table(measured).to_pylist()}
    assert [version for version, value in found.items() if value is not None] == [4, 8, 10]
    experiment = small(*QS)
    data, model = experiment.data, experiment.new_model()
    experiment.layout.bind(model, seen.vectors[10].clone())
    losses = []
    for client in range(10):
        rows = data.train.take(torch.as_tensor(data.validation[client]))
        with judging(model):
            outputs = model(rows.features)
        losses.append([float(t.mean_loss(o, y)) for t, o, y in zip(data.tasks, outputs, rows.targets, strict=True)])
    assert found[10] == pytest.approx(np.var(losses, axis=0).tolist(), rel=1e-4)  # sums of float32 in other batches


ALONE = {"update_spread", "dissimilarity", "pair_cosine"}
TYPED = {f"share_{name}" for name in TYPE_NUMBERS}


@pytest.mark.parametrize(
    ("settings", "nowhere"),
    [
        (("strategy.name=fedbuff", "strategy.buffer_size=3"), TYPED),
        (("strategy.name=fedavg", "strategy.clients_per_round=4"), TYPED),
        (("strategy.name=fedasync",), TYPED | ALONE),
        (("strategy.name=fsmgda", "strategy.clients_per_round=3"), TYPED),
        (("strategy.name=dfedsam", "data.clients=6"), TYPED),
        (("strategy.name=fedbuff", "devices.ratio=1", "tasks.ownership=skewed"), TYPED | {"share_fast"}),
        (("strategy.name=fedbuff", "model.norm=batch", "compression.name=top-entries"), TYPED),
    ],
    ids=["gradients", "models", "one update a step", "tasks apart", "gossip", "equal devices", "compressed"],
)
def test_every_kind_of_step_is_measured_and_keeps_its_bits(
    settings: Sequence[str], nowhere: set[str], tmp_path: Path
) -> None:
    directories = tmp_path / "on", tmp_path / "off"
    for directory, switch in zip(directories, (ON, "records.convergence=false"), strict=True):
        run(small("balancing.name=equal", "stop.versions=3", *settings, switch), directory, pictures=False)
    model, plain = ((directory / "model.safetensors").read_bytes() for directory in directories)
    assert model == plain
    found = table(tmp_path / "on")
    absent = {name for name in CONVERGENCE.names[:-1] if found[name].null_count == found.num_rows}
    assert absent == nowhere
    assert all(found[name].null_count == 0 for name in {*CONVERGENCE.names[:-1]} - nowhere)
    assert len(found["loss_variance"][-1].as_py()) == 4


def test_of_real_clients_no_speeds_are_known(tmp_path: Path) -> None:
    class Elsewhere(SimulatedFleet):
        simulated = False

    def fleet(experiment: Experiment) -> SimulatedFleet:
        workers = new_workers(experiment, experiment.config.engine)
        return Elsewhere(experiment.data, experiment.devices, workers, experiment.layout)

    settings = ("strategy.name=fedbuff", "strategy.buffer_size=3", "stop.versions=4")
    run(small(ON, *settings), tmp_path / "run", pictures=False, fleet=fleet)
    found = table(tmp_path / "run")
    assert found["share_fast"].null_count == 4
    assert found["pair_cosine"].null_count == 0
    assert found["loss_variance"].null_count == 3  # that of the held-out examples that the server has built


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_goes_on_with_the_columns_that_it_began_with(begun: bool, tmp_path: Path) -> None:
    def switched(on: bool) -> Experiment:
        return small(*QS, f"records.convergence={str(on).lower()}")

    run(switched(begun), tmp_path / "run", pictures=False, observers=[InterruptAt(14)])
    shutil.copytree(tmp_path / "run", tmp_path / "before")
    with pytest.raises(CheckpointError, match=r"records.convergence: the tables .* leave it as it was"):
        run(switched(not begun), tmp_path / "run", resume=True, pictures=False)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir() if path.is_file()}
