"""Studies with single-task baselines: what experiments share, what is chosen for them, and the tables."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedmtl.config import to_toml
from fedmtl.errors import ConfigError
from fedmtl.metrics import Metric, mean_ranks
from simulations import Experiment, run
from simulations.baselines import baselines, train
from simulations.studies.across_tasks import add_comparisons, task_tables
from simulations.studies.baselines import StudyBaselines
from simulations.studies.file import load_study
from simulations.studies.results import collect, write_table
from simulations.studies.run import run_directory, run_study
from simulations.studies.study import Study

TASKS = ["digit", "parity", "ink", "asymmetry"]
SMALL = {
    "name": "small",
    "seeds": 2,
    "baselines": True,
    "base": {
        "data": {"clients": 12},
        "strategy": {"name": "fedbuff", "buffer_size": 3},
        "stop": {"versions": 3},
        "records": {"evaluate_every": 1},
    },
    "axes": {
        "balancing": {"equal": {"balancing": {"name": "equal"}}, "SR": {"balancing": {"name": "ntkmtl-sr"}}},
        "owners": {"all": {"tasks": {"ownership": "all"}}, "apart": {"tasks": {"ownership": "disjoint"}}},
    },
}
TUNED = {
    "tune": {
        "key": "training.learning_rate",
        "values": [0.001, 0.1],
        "seeds": [9],
        "per": ["balancing"],
        "at": {"owners": "all"},
    }
}

Load = Callable[..., Study]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Makes a study of tables."""

    def make(**changes: object) -> Study:
        path = tmp_path / "small.toml"
        path.write_text(to_toml(SMALL | changes))
        return load_study(path)

    return make


def test_labels_that_differ_in_balancing_share_baselines_and_others_do_not(load: Load, tmp_path: Path) -> None:
    study = load()
    known = StudyBaselines(study, tmp_path)
    assert known.trials() == []
    assert len(known.finals()) == 2 * 2 * 4  # seeds, owners, tasks
    assert known.count() == (16, 0)
    by_labels = {tuple(cell.labels.values()): known.of(cell) for cell in study.cells() if cell.seed == 0}
    assert by_labels["equal", "all"] == by_labels["SR", "all"]
    assert not {b.key for b in by_labels["SR", "all"]} & {b.key for b in by_labels["SR", "apart"]}
    by_hand = baselines(Experiment.load(tables=study.cells()[0].tables))
    assert [b.key for b in by_labels["equal", "all"]] == [b.key for b in by_hand]


@pytest.mark.slow
def test_a_tuned_setting_is_chosen_for_baselines_too_and_shared_between_labels(load: Load, tmp_path: Path) -> None:
    study = load(seeds=[0], **TUNED)
    known = StudyBaselines(study, tmp_path)
    trials = known.trials()
    assert sorted((b.task, b.tables["training"]["learning_rate"]) for b in trials) == sorted(
        (task, rate) for task in TASKS for rate in (0.001, 0.1)
    )
    assert {b.tables["seed"] for b in trials} == {9}
    assert known.finals() == []  # nothing to choose from yet
    assert known.count() == (8 + 8, 0)
    for baseline in trials:
        train(baseline, known.folder)
    finals = StudyBaselines(study, tmp_path).finals()
    assert len(finals) == 2 * 4
    rates = {(b.task, b.tables["tasks"]["ownership"]): b.tables["training"]["learning_rate"] for b in finals}
    # A rate a hundred times too small learns nothing of the digits in three versions.
    assert all(rates[task, "all"] == rates[task, "disjoint"] for task in TASKS)
    assert 0.1 in rates.values()


def test_trials_that_failed_leave_an_experiment_without_baselines(load: Load, tmp_path: Path) -> None:
    study = load(seeds=[0], **TUNED)
    assert StudyBaselines(study, tmp_path).values(study.cells()[0]) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baselines": "yes"}, "baselines = 'yes': write true or false"),
        ({"base": {**SMALL["base"], "records": {"baselines": True}}}, "write baselines = true at the top"),
    ],
)
def test_mistakes_are_named(load: Load, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(**changes)


def test_a_study_that_can_have_none_is_refused_before_it_runs(load: Load, tmp_path: Path) -> None:
    study = load(base={**SMALL["base"], "tasks": {"names": ["ink"]}})
    with pytest.raises(ConfigError, match="one task, 'ink'"):
        StudyBaselines(study, tmp_path).count()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study in one place whose runs and baselines are all there."""
    folder = tmp_path_factory.mktemp("study")
    axes = {"balancing": SMALL["axes"]["balancing"]}
    (folder / "small.toml").write_text(to_toml({**SMALL, "axes": axes}))
    study, out = load_study(folder / "small.toml"), folder / "out"
    for cell in study.cells():
        run(Experiment.load(tables=cell.tables), run_directory(out, cell), pictures=False)
    known = StudyBaselines(study, out)
    for baseline in known.finals():
        train(baseline, known.folder)
    assert known.count() == (8, 8)
    return study, out


@pytest.mark.slow
def test_results_have_each_tasks_change_delta_m_and_ranks(finished: tuple[Study, Path]) -> None:
    study, out = finished
    rows = collect(study, out).to_pylist()
    assert len(rows) == 2 * 2 * 4
    for row in rows:
        sign = -1 if row["metric"] == "accuracy" else 1
        assert row["change"] == pytest.approx(sign * 100 * (row["final"] / row["single_task"] - 1), abs=1e-9)
    for seed in (0, 1):
        finals, metrics = {}, []
        for label in ("equal", "SR"):
            mine = [row for row in rows if (row["seed"], row["balancing"]) == (seed, label)]
            mean = pytest.approx(np.mean([row["change"] for row in mine]))
            assert all(row["delta_m"] == mean == row["delta_m_by_task"] for row in mine)
            finals[label] = [row["final"] for row in mine]
            metrics = [Metric(row["task"], row["metric"], row["metric"] == "accuracy") for row in mine]
        for label, rank in mean_ranks(finals, metrics).items():
            mine = [row for row in rows if (row["seed"], row["balancing"]) == (seed, label)]
            assert {row["mean_rank"] for row in mine} == {rank}
    # The ranks of two among themselves add up to 3.
    assert sum(row["mean_rank"] for row in rows) == pytest.approx(3 * 2 * 4)


def test_the_table_has_a_row_per_label_and_all_tasks_side_by_side(finished: tuple[Study, Path]) -> None:
    study, out = finished
    text = write_table(study, collect(study, out), out).read_text()
    together, apart = text.split("# Task by task")
    assert "equal values share the mean of their ranks" in together
    together = together[together.index("## All tasks") :]
    header = next(line for line in together.splitlines() if "digit" in line)
    assert header.startswith("| | digit, accuracy ↑ | parity, accuracy ↑ | ink, mse ↓ | asymmetry, mae ↓ |")
    assert header.endswith("| delta-m, % ↓ | mean rank ↓ | runs |")
    assert together.count("| equal |") == together.count("| SR |") == 1
    assert apart.count("| SR |") == 4
    lines = [line for line in together.splitlines() if line.startswith(("| equal |", "| SR |"))]
    for column in range(2, 6):
        assert any("**" in line.split("|")[column] for line in lines)


def test_a_missing_baseline_leaves_holes_and_a_missing_run_its_seed_without_ranks(
    finished: tuple[Study, Path], tmp_path: Path
) -> None:
    study, whole = finished
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    cells = study.cells()
    shutil.rmtree(out / "baselines" / StudyBaselines(study, out).of(cells[0])[0].key)
    shutil.rmtree(run_directory(out, next(c for c in cells if c.seed == 1 and c.labels["balancing"] == "SR")))
    rows = collect(study, out).to_pylist()
    assert len(rows) == 3 * 4
    for row in rows:
        assert (row["delta_m"] is None) == (row["seed"] == 0)
        assert (row["mean_rank"] is None) == (row["seed"] == 1)


def test_a_run_that_diverged_is_said_to_be_and_ranks_last(finished: tuple[Study, Path]) -> None:
    study, out = finished
    results = collect(study, out).to_pylist()
    for row in results:
        if row["balancing"] == "SR":
            row["final"] = math.nan
    add_comparisons(Study(**{**vars(study), "baselines": False}), out, results)
    lines = task_tables(study, pa.Table.from_pylist(results))
    (diverged,) = [line for line in lines if line.startswith("| SR |")]
    assert diverged.count("diverged") == 4
    assert "| 2.00 ± 0.00 |" in diverged


def test_one_task_needs_no_table_of_all_tasks(finished: tuple[Study, Path]) -> None:
    study, out = finished
    results = collect(study, out)
    one = results.filter(pa.compute.equal(results["task"], "ink"))
    assert task_tables(study, one) == []


@pytest.mark.slow("ray")
def test_a_study_trains_its_baselines_once_and_goes_on_where_it_was(load: Load, tmp_path: Path) -> None:
    two = {**SMALL["base"], "tasks": {"names": ["digit", "ink"]}}
    axes = {"balancing": SMALL["axes"]["balancing"]}
    study, out, told = load(seeds=[0], base=two, axes=axes), tmp_path / "out", []
    assert run_study(study, out, workers=2, progress=lambda cell, fault: told.append((cell.name, fault))) == []
    total, there = StudyBaselines(study, out).count()
    assert total == there == 2
    assert len(told) == total + len(study.cells())
    assert not any(fault for _, fault in told)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "baselines").rglob("*")}
    told.clear()
    run_study(study, out, workers=1, progress=lambda cell, fault: told.append((cell.name, fault)))
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in (out / "baselines").rglob("*")} == stamps
    assert None not in collect(study, out)["delta_m"].to_pylist()
    kept = json.loads((next((out / "baselines").iterdir()) / "summary.json").read_text())
    assert len(kept["tasks"]) == 1
