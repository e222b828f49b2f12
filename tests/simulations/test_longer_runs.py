"""Runs that were to end earlier, and go on: to the bits of a run that was to end there from the start."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedmtl.config import read_toml
from fedmtl.errors import CheckpointError, ConfigError, RunDirectoryError
from fedmtl.records.summary import read_summary
from simulations import Experiment, run
from simulations.cli.run import resume_run
from strategies.core.loop import Loop, Observer

SMALL = [
    *("name=small", "data.clients=8", "devices.ratio=9", "training.epochs=1", "training.batch_size=100"),
    *("records.evaluate_every=4", "records.checkpoint_every=3", "records.convergence=true"),
]
FIRST, LATER = 6, 11
"""Neither is a version that is evaluated or measured, and none but the first is one that is saved, either."""

STRATEGIES = {
    "buffered": ("strategy.name=fedqs", "strategy.buffer_size=3"),
    "synchronous": ("strategy.name=fedavg", "strategy.clients_per_round=4"),
    "groups, with a last step at the end": ("strategy.name=fedcompass", "strategy.end_flush=true"),
    "gossip, with models of its nodes": ("strategy.name=dfedsam",),
    "kernels": ("strategy.name=fedbuff", "strategy.buffer_size=3", "records.ntk_every=4"),
}


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


def files(directory: Path) -> dict[str, bytes]:
    """Everything that a run leaves but what tells of real time: the summary, and the checkpoint, which holds some."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    return {
        name: path.read_bytes() for name, path in names.items() if not name.startswith(("summary.json", "checkpoint/"))
    }


def summary(directory: Path) -> dict[str, object]:
    return {
        name: value for name, value in read_summary(directory).items() if name not in ("wall_seconds", "ntk_seconds")
    }


class InterruptAt(Observer):
    """Interrupts the loop after a version, as a signal does."""

    def __init__(self, version: int) -> None:
        self.version = version

    def after_event(self, loop: Loop, event: object) -> None:
        if loop.strategy.model.version == self.version:
            loop.interrupt()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_a_finished_run_that_goes_on_gives_the_tables_and_the_model_of_one_that_was_never_to_end_earlier(
    tmp_path: Path, strategy: Sequence[str]
) -> None:
    at_once, longer = tmp_path / "at once", tmp_path / "longer"
    run(small(*strategy, f"stop.versions={LATER}"), at_once, pictures=False)
    run(small(*strategy, f"stop.versions={FIRST}"), longer, pictures=False)
    assert pq.read_table(longer / "evaluations.parquet")["version"][-1].as_py() >= FIRST  # which was not due
    flushed = "flush" in pq.read_table(longer / "aggregations.parquet")["trigger"].to_pylist()
    assert flushed == ("strategy.end_flush=true" in strategy)
    run(small(*strategy, f"stop.versions={LATER}"), longer, resume=True, pictures=False)
    assert files(longer) == files(at_once)
    assert summary(longer) == summary(at_once)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("at once") / "run"
    run(small(f"stop.versions={LATER}"), directory, pictures=False)
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished") / "run"
    run(small(f"stop.versions={FIRST}"), directory, pictures=False)
    return directory


@pytest.fixture
def ended(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("version", [FIRST, 7, 10])
def test_a_longer_run_that_is_interrupted_is_one_that_can_be_resumed(ended: Path, at_once: Path, version: int) -> None:
    """Also after its first event, when the rows of the first end stand in no other file than the old tables."""
    experiment = small(f"stop.versions={LATER}")
    assert run(experiment, ended, resume=True, pictures=False, observers=[InterruptAt(version)]).interrupted
    assert not {"summary.json", "model.safetensors", "report.html"} & {path.name for path in ended.iterdir()}
    assert read_toml(ended / "experiment.toml")["stop"]["versions"] == LATER
    assert not run(experiment, ended, resume=True, pictures=False).interrupted
    assert files(ended) == files(at_once)


def test_a_run_that_was_interrupted_may_be_given_another_end(tmp_path: Path, at_once: Path) -> None:
    run(small("stop.versions=400"), tmp_path / "run", pictures=False, observers=[InterruptAt(7)])
    with pytest.raises(ConfigError, match="got there already: 7 versions were made; ask for more"):
        resume_run(tmp_path / "run", ["stop.versions=7"])
    assert read_toml(tmp_path / "run" / "experiment.toml")["stop"]["versions"] == 400
    run(small(f"stop.versions={LATER}"), tmp_path / "run", resume=True, pictures=False)
    assert files(tmp_path / "run") == files(at_once)


@pytest.mark.parametrize(
    ("assignments", "error", "message"),
    [
        ([], RunDirectoryError, f"is finished; there is nothing to resume: {FIRST} versions were made. To"),
        (["stop.versions=5"], ConfigError, "got there already: 5 versions were made; ask for more"),
        (["stop.versions=99", "stop.updates=3"], ConfigError, "got there already: 3 updates arrived"),
        (
            ["stop.versions=9", "training.learning_rate=0.2"],
            ConfigError,
            "--set training.learning_rate=0.2: a run that",
        ),
        (["seed=4"], ConfigError, "--set seed=4: a run that goes on computes what it computed before"),
        (
            ["stop.versions=99", "stop.target={task='digit', value=0.0}"],
            ConfigError,
            "got there already: task digit reached 0",
        ),
    ],
)
def test_what_is_no_later_end_is_refused_and_changes_nothing(
    ended: Path, assignments: list[str], error: type[Exception], message: str
) -> None:
    before = {path: path.read_bytes() for path in ended.rglob("*") if path.is_file()}
    with pytest.raises(error, match=message):
        resume_run(ended, assignments)
    assert {path: path.read_bytes() for path in ended.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_what_changes_no_result_may_be_set_beside_a_later_end(ended: Path) -> None:
    assert resume_run(ended, ["stop.versions=7", "name=longer", "records.pictures=[]"])
    assert read_summary(ended)["name"] == "longer"


def test_a_run_resumes_as_no_other_experiment_even_before_its_first_checkpoint(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run(small(f"stop.versions={FIRST}"), directory, pictures=False, observers=[InterruptAt(0)])
    shutil.rmtree(directory / "checkpoint")
    shutil.rmtree(directory / "records")
    with pytest.raises(CheckpointError, match=r"experiment\.toml is another configuration"):
        run(small(f"stop.versions={FIRST}", "training.learning_rate=0.2"), directory, resume=True, pictures=False)
