"""Whole runs: the same bits twice, after any kill, and nothing half-written."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedmtl.checkpoint import load_checkpoint
from fedmtl.errors import CheckpointError, RunDirectoryError, UserError
from simulations import Experiment, run
from simulations.cli.run import resume_run
from simulations.directory import RunDirectory
from tests.interrupting import InterruptAt

TABLES = ("updates.parquet", "aggregations.parquet", "evaluations.parquet")
SMALL = [
    "name=small",
    "data.clients=20",
    "stop.versions=30",
    "records.evaluate_every=5",
    "records.checkpoint_every=4",
    "strategy.buffer_size=4",
    "devices.ratio=9",
    "records.convergence=true",
    "training.epochs=1",
]


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


def results(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in (*TABLES, "model.safetensors", "experiment.toml")}


@pytest.fixture(scope="module")
def uncut_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the directory of the small run with some settings, made once. Tests must not write to it."""

    @functools.cache
    def make(*overrides: str) -> Path:
        directory = tmp_path_factory.mktemp("uncut") / "run"
        run(small(*overrides), directory, pictures=False)
        return directory

    return make


@pytest.fixture(scope="module")
def uncut(uncut_with: Callable[..., Path]) -> Path:
    return uncut_with()


@pytest.mark.slow
def test_a_run_leaves_tables_a_model_plots_a_report_and_a_summary(tmp_path: Path) -> None:
    result = run(small("stop.versions=6", 'tasks.names=["digit"]', "records.convergence=false"), tmp_path / "run")
    names = {path.name for path in result.directory.iterdir()}
    assert {*TABLES, "model.safetensors", "report.html", "summary.json", "experiment.toml", "plots"} <= names
    assert result.summary["updates"] == {"applied": 24, "rejected": 0, "unsettled": 0}
    assert result.ended == "6 versions were made"
    assert not any(name.endswith(".tmp") for name in names)


def test_the_same_seed_gives_the_same_bits(uncut: Path, tmp_path: Path) -> None:
    run(small(), tmp_path / "again", pictures=False)
    assert results(tmp_path / "again") == results(uncut)


def test_another_seed_gives_another_run(uncut: Path, tmp_path: Path) -> None:
    run(small("seed=1"), tmp_path / "other", pictures=False)
    assert results(tmp_path / "other")["updates.parquet"] != results(uncut)["updates.parquet"]


@pytest.mark.parametrize("events", [1, 5, 37, 90])
@pytest.mark.parametrize("extra", [(), ("strategy.aggregation=model",), ("devices.dropout=0.2", "devices.away=5")])
def test_a_run_interrupted_after_any_event_and_resumed_gives_the_same_bits(
    uncut_with: Callable[..., Path], tmp_path: Path, events: int, extra: tuple[str, ...]
) -> None:
    cut = tmp_path / "cut"
    first = run(small(*extra), cut, pictures=False, observers=[InterruptAt(events)])
    assert first.interrupted
    assert not (cut / "summary.json").exists()
    second = run(small(*extra), cut, resume=True, pictures=False, observers=[InterruptAt(20)])
    if second.interrupted:
        run(small(*extra), cut, resume=True, pictures=False)
    assert results(cut) == results(uncut_with(*extra))


SCRIPT = """
import sys
from simulations import Experiment, run
if __name__ == "__main__":
    directory, resume, *overrides = sys.argv[1:]
    result = run(Experiment.load(None, overrides), directory, resume=resume == "resume", pictures=False)
    sys.exit(130 if result.interrupted else 0)
"""


def start(directory: Path, mode: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(directory), mode, *SMALL]
    return subprocess.Popen(command, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_at_random_moments_and_resumed_gives_the_same_bits(uncut: Path, tmp_path: Path, seed: int) -> None:
    directory, moments = tmp_path / "killed", random.Random(seed)
    kills = 0
    for _ in range(12):
        if (directory / "summary.json").exists():  # the last kill came after the end
            break
        process = start(directory, "resume" if (directory / "experiment.toml").exists() else "fresh")
        deadline = time.monotonic() + 120
        while not (directory / "experiment.toml").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            # The small run takes about a second once its directory is there; the first kills come within that.
            process.wait(timeout=moments.uniform(0.0, 0.6) if kills < 4 else 120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
            kills += 1
            continue
        assert process.returncode == 0
        break
    assert kills >= 1
    assert results(directory) == results(uncut)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run_and_a_resumed_one_gives_the_same_bits(
    uncut: Path, tmp_path: Path, number: signal.Signals
) -> None:
    directory = tmp_path / "signalled"
    process = start(directory, "fresh")
    deadline = time.monotonic() + 120
    while not (directory / "checkpoint" / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert start(directory, "resume").wait(timeout=120) == 0
    assert results(directory) == results(uncut)


@pytest.mark.parametrize(
    ("override", "ended"),
    [
        ("stop.time=3", "3 s have passed"),
        ("stop.updates=10", "10 updates arrived"),
        ("stop.target={task='digit', value=0.15}", "task digit reached 0.15"),
    ],
)
def test_a_run_ends_at_the_first_limit_that_is_reached(tmp_path: Path, override: str, ended: str) -> None:
    assert run(small(override, "records.evaluate_every=1"), tmp_path / "run", pictures=False).ended == ended


def test_a_client_whose_loss_is_not_finite_is_rejected_and_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    experiment = small("stop.versions=10")
    experiment.data.train.features[experiment.data.shards[3]] = torch.nan
    result = run(experiment, tmp_path / "run", pictures=False)
    updates = pq.read_table(result.directory / "updates.parquet").to_pylist()
    rejected = [row for row in updates if row["rejected"]]
    assert rejected
    assert {row["client"] for row in rejected} == {3}
    assert "loss of task" in rejected[0]["rejected"]
    assert all(row["applied_version"] is None for row in rejected)
    model = load_file(result.directory / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in model.values())


@pytest.mark.slow
def test_a_run_in_which_every_update_is_rejected_ends_with_advice(tmp_path: Path) -> None:
    experiment = small("model.name=linear", "balancing.name=equal", 'tasks.names=["digit"]')
    experiment.data.train.features[:] = torch.inf
    with pytest.raises(UserError, match="learning_rate"):
        run(experiment, tmp_path / "run", pictures=False)


def test_a_directory_that_holds_a_run_is_refused_and_left_alone(uncut: Path) -> None:
    before = results(uncut)
    with pytest.raises(RunDirectoryError, match="--overwrite"):
        run(small("seed=5"), uncut, pictures=False)
    with pytest.raises(RunDirectoryError, match="finished"):
        run(small(), uncut, resume=True, pictures=False)
    assert results(uncut) == before


def test_overwrite_removes_the_older_run_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run(small("stop.versions=8"), directory, pictures=False)
    (directory / "notes.txt").write_text("mine")
    run(small("stop.versions=2"), directory, overwrite=True, pictures=False)
    assert pq.read_table(directory / "aggregations.parquet").num_rows == 2
    assert (directory / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), RunDirectoryError("the disk is full")])
def test_a_start_that_is_cut_short_leaves_nothing_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def fail(directory: Path, *written: object) -> None:
        assert (directory / "partition.parquet").exists()
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr("simulations.directory.write_devices", fail)
        with pytest.raises(type(fault)):
            run(small(), tmp_path / "run", pictures=False)
    assert not (tmp_path / "run").exists()
    run(small("stop.versions=1"), tmp_path / "run", pictures=False)


def test_a_directory_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        run(small(), tmp_path, overwrite=True, pictures=False)
    with pytest.raises(RunDirectoryError, match="is a file"):
        run(small(), tmp_path / "thesis.tex", pictures=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run(small(), directory, pictures=False, observers=[InterruptAt(50)])
    with pytest.raises(CheckpointError, match="another configuration"):
        run(small("training.learning_rate=0.2"), directory, resume=True, pictures=False)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run(small(), directory, pictures=False, observers=[InterruptAt(50)])
    path = RunDirectory(directory).checkpoint / "state.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        run(small(), directory, resume=True, pictures=False)


@pytest.mark.parametrize(("number", "age"), [(None, "an older"), ("1", "an older"), ("99", "a newer")])
def test_a_checkpoint_of_another_version_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str | None, age: str
) -> None:
    """A state that would be damaged and of another configuration, too, and an experiment with a key of that time."""
    directory = tmp_path / "run"
    run(small(), directory, pictures=False, observers=[InterruptAt(50)])
    save_file(
        {"weird": torch.zeros(1)},
        RunDirectory(directory).checkpoint / "state.safetensors",
        {"state": "{", "configuration": "other"} | ({} if number is None else {"format": number}),
    )
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    message = f"state.safetensors was made by {age} FedMTL whose state this version cannot read: start the run again"
    with pytest.raises(CheckpointError, match=message):
        run(small("training.learning_rate=0.2"), directory, resume=True, pictures=False)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(RunDirectory(directory).checkpoint, "other")
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    experiment = directory / "experiment.toml"
    experiment.write_text(experiment.read_text().replace("[strategy]", '[strategy]\nprofile = "paper"'))
    with pytest.raises(CheckpointError, match=message):
        resume_run(directory)


def test_bad_data_leave_no_directory_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run(small("data.clients=5000"), tmp_path / "run", pictures=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow("ray")
@pytest.mark.parametrize("count", [1, 2])
def test_a_run_on_ray_gives_the_bits_of_an_inline_run_also_when_it_is_interrupted_and_resumed(
    uncut: Path, tmp_path: Path, count: int
) -> None:
    directory, ray = tmp_path / "ray", ("engine.workers=ray", f"engine.count={count}")
    assert run(small(*ray), directory, pictures=False, observers=[InterruptAt(33)]).interrupted
    assert not run(small(*ray), directory, resume=True, pictures=False).interrupted
    here, there = results(directory), results(uncut)
    del here["experiment.toml"], there["experiment.toml"]
    assert here == there
