"""Single-task baselines: what they are, when they are trained anew, and that nothing half-made is believed."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedmtl.errors import ConfigError, RunDirectoryError
from fedmtl.protocol import Event
from fedmtl.records.single_task import SINGLE_TASK
from simulations import Experiment, run
from simulations.baselines import (
    FOLDER,
    Baseline,
    WatchBaseline,
    baselines,
    fingerprint,
    is_there,
    read_value,
    single_task_values,
    train,
)
from simulations.runner import SingleTaskProvider
from simulations.runner import run as bare_run
from strategies.core.loop import Loop, Observer

SMALL = [
    "data.clients=12",
    "strategy.name=fedbuff",
    "strategy.buffer_size=3",
    "stop.versions=6",
    "records.evaluate_every=2",
    "devices.ratio=9",
]
NAMES = ["digit", "parity", "ink", "asymmetry"]


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


def keys(*overrides: str) -> list[str]:
    return [baseline.key for baseline in baselines(small(*overrides), NAMES)]


class Watcher:
    """Writes down which baselines are trained."""

    def __init__(self) -> None:
        self.trained: list[str] = []

    @contextmanager
    def __call__(self, baseline: Baseline, place: int, of: int) -> Iterator[Observer]:
        self.trained.append(baseline.task)
        yield Observer()


def shown_by(watch: WatchBaseline) -> SingleTaskProvider:
    """Provides baselines, and has their training shown."""
    return functools.partial(single_task_values, watch=watch)


class Interruption(Observer):
    """Asks for the end after the first event."""

    def after_event(self, loop: Loop, event: Event) -> None:
        loop.interrupt()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, ``balanced``, and its baselines."""
    folder = tmp_path_factory.mktemp("runs")
    run(small("records.baselines=true"), folder / "balanced", pictures=False)
    return folder


def summary_of(directory: Path) -> dict:
    return json.loads((directory / "summary.json").read_text())


@pytest.mark.slow
def test_a_baseline_has_the_bits_of_a_run_made_by_hand(runs: Path, tmp_path: Path) -> None:
    known = summary_of(runs / "balanced")[SINGLE_TASK]["tasks"]
    for task in ("digit", "ink"):
        for how in (f"tasks.only={task}", f'tasks.names=["{task}"]'):
            by_hand = tmp_path / how[:9] / task
            result = run(small("balancing.name=equal", how), by_hand, pictures=False)
            assert result.summary["tasks"][0]["mean_of_last"] == known[task]["value"]
            kept = (runs / "balanced" / known[task]["directory"]).resolve()
            for name in ("updates.parquet", "evaluations.parquet", "model.safetensors"):
                assert (kept / name).read_bytes() == (by_hand / name).read_bytes()


def test_changes_and_delta_m_are_those_of_the_final_metrics(runs: Path) -> None:
    summary = summary_of(runs / "balanced")
    found, signs = summary[SINGLE_TASK], []
    for task in summary["tasks"]:
        alone = found["tasks"][task["name"]]
        relative = 100 * (task["mean_of_last"] - alone["value"]) / alone["value"]
        signs.append(-relative if task["higher_is_better"] else relative)
        assert alone["change"] == pytest.approx(signs[-1], abs=1e-9)
    assert found["delta_m"] == found["delta_m_by_task"] == pytest.approx(np.mean(signs), abs=1e-9)
    assert found["problem"] is None


def test_what_is_there_is_not_trained_again_whatever_the_balancing(runs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (runs / FOLDER).rglob("*")}
    watcher = Watcher()
    again = small("records.baselines=true", "balancing.name=equal", "name=again", "records.checkpoint_every=3")
    result = run(again, runs / "again", pictures=False, single_task=shown_by(watcher))
    assert watcher.trained == []
    assert {path: path.stat().st_mtime_ns for path in (runs / FOLDER).rglob("*")} == before
    assert set(result.summary[SINGLE_TASK]["tasks"]) == set(NAMES)


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "training.learning_rate=0.05",
        "strategy.buffer_size=4",
        "data.alpha=1.0",
        "devices.ratio=8",
        "model.name=linear",
        "tasks.ownership=disjoint",
        "compression.name=shared-randomness",
        "stop.versions=7",
        "records.evaluate_every=3",
        "engine.device=cuda",
    ],
)
def test_whatever_matters_to_the_result_makes_other_baselines(change: str) -> None:
    assert set(keys(change)).isdisjoint(keys())


@pytest.mark.parametrize("change", ["balancing.name=equal", "name=x", "records.dir=y", "engine.count=2"])
def test_what_does_not_matter_shares_them(change: str) -> None:
    assert keys(change) == keys()


def test_a_file_counts_by_its_contents(tmp_path: Path) -> None:
    speeds = tmp_path / "speeds.csv"

    def key() -> str:
        return fingerprint(small("devices={kind='trace', file='" + str(speeds) + "'}"))

    speeds.write_text("client,seconds_per_order\n0,1\n")
    first = key()
    assert key() == first
    speeds.write_text("client,seconds_per_order\n0,2\n")
    assert key() != first


def test_another_version_of_a_package_that_computes_makes_other_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys()
    monkeypatch.setattr("simulations.baselines.package_versions", lambda: {"torch": "9.9", "flwr": "1"})
    assert set(keys()).isdisjoint(before)


@pytest.mark.parametrize("partition", ["dirichlet", "task-disjoint"])
def test_tasks_keep_their_owners_and_nobody_else_is_asked(partition: str, tmp_path: Path) -> None:
    experiment = small("tasks.ownership=disjoint", f"data.partition={partition}", "strategy.buffer_size=2")
    whole = experiment.data
    for index, baseline in enumerate(baselines(experiment)):
        data = baseline.experiment.data
        owners = np.flatnonzero(whole.owners[:, index]).tolist()
        assert list(data.active) == owners
        assert [data.shards[c].tolist() for c in owners] == [whole.shards[c].tolist() for c in owners]
        assert baseline.experiment.nominal_seconds.tolist() == experiment.nominal_seconds.tolist()
        assert train(baseline, tmp_path)
        updates = pq.read_table(tmp_path / baseline.key / "updates.parquet")
        assert set(updates["client"].to_pylist()) == set(owners)


def test_an_interrupted_baseline_leaves_nothing_and_the_finished_ones_stay(tmp_path: Path) -> None:
    first, second, *_ = baselines(small(), NAMES)
    assert train(first, tmp_path)
    assert not train(second, tmp_path, Interruption())
    assert [path.name for path in tmp_path.iterdir()] == [first.key]
    assert is_there(first, tmp_path)
    assert not is_there(second, tmp_path)


def test_an_interruption_among_the_baselines_begins_no_run_and_the_next_try_goes_on(tmp_path: Path) -> None:
    experiment, told = small("records.baselines=true"), []

    @contextmanager
    def cut(baseline: Baseline, place: int, of: int) -> Iterator[Observer]:
        told.append((baseline.task, place, of))
        yield Interruption() if place == 2 else Observer()

    assert run(experiment, tmp_path / "run", pictures=False, single_task=shown_by(cut)).interrupted
    assert told == [("digit", 1, 4), ("parity", 2, 4)]
    assert not (tmp_path / "run").exists()
    watcher = Watcher()
    assert run(experiment, tmp_path / "run", pictures=False, single_task=shown_by(watcher)).ended
    assert watcher.trained == ["parity", "ink", "asymmetry"]


def test_two_that_train_the_same_baseline_at_once_agree_on_one(tmp_path: Path) -> None:
    baseline, barrier, done = baselines(small(), NAMES)[0], threading.Barrier(2, timeout=60), []

    class Meeting(Observer):
        def on_start(self, loop: Loop) -> None:
            barrier.wait()

    def work() -> None:
        done.append(train(Baseline(baseline.task, baseline.tables), tmp_path, Meeting()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [True, True]
    assert [path.name for path in tmp_path.iterdir()] == [baseline.key]
    assert is_there(baseline, tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("summary.json", "{", "baseline of 'digit' is damaged.*remove .*trained again"),
        ("summary.json", None, "summary.json is missing.*trained again"),
        ("summary.json", '{"tasks": [{"name": "ink", "mean_of_last": 1.0}]}', "is not the summary.*trained again"),
        ("experiment.toml", "seed = 5\n", "another run than the baseline of 'digit'"),
        ("experiment.toml", "seed = ", "not a valid TOML file.*trained again"),
    ],
)
def test_what_is_damaged_or_foreign_is_named_with_the_remedy(
    tmp_path: Path, file: str, text: str | None, message: str
) -> None:
    baseline = baselines(small("stop.versions=1"), NAMES)[0]
    train(baseline, tmp_path)
    value = read_value(baseline, tmp_path)
    assert 0 <= value <= 1
    path = tmp_path / baseline.key / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(RunDirectoryError, match=message):
        is_there(baseline, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['tasks.names=["ink"]'], "one task, 'ink'"),
        (["tasks.only=parity"], "one task, 'parity'"),
        (["stop.target.task=digit", "stop.target.value=0.9"], "stop.target ends the run at a value of one task"),
    ],
)
def test_an_experiment_that_can_have_none_is_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(small("records.baselines=true", *overrides), tmp_path / "run", pictures=False)
    assert not list(tmp_path.iterdir())


def test_the_runner_by_itself_refuses_baselines_but_looks_at_the_directory_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"records.baselines: .*simulations.run, or leave"):
        bare_run(small("records.baselines=true"), tmp_path / "run", pictures=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="is not empty and holds no run"):
        bare_run(small("records.baselines=true"), tmp_path, pictures=False)


def test_a_run_that_was_cut_is_resumed_with_its_baselines(tmp_path: Path) -> None:
    experiment = small("records.baselines=true", "records.checkpoint_every=1")
    assert run(experiment, tmp_path / "run", pictures=False, observers=(Interruption(),)).interrupted
    result = run(Experiment.load(tmp_path / "run" / "experiment.toml"), tmp_path / "run", resume=True, pictures=False)
    assert result.summary[SINGLE_TASK]["delta_m"] is not None


def test_a_checkpoint_does_not_depend_on_whether_baselines_are_wanted() -> None:
    assert small().digest == small("records.baselines=true").digest
    assert small().digest != small("tasks.only=ink").digest
