"""Runs side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedmtl.compare import Comparison, RankBy, compare, mean_rank
from fedmtl.errors import RunDirectoryError
from fedmtl.evaluation import EvaluationRow
from fedmtl.inputs import read_input, write_inputs
from fedmtl.records import Recorder, read_summary, summarise, write_summary
from fedmtl.records.single_task import SINGLE_TASK, against_single_task
from fedmtl.tasks import Task

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(make_run: MakeRun) -> list[Path]:
    return [make_run(name, versions=60, rate=rate, strategy=name) for name, rate in (("quick", 15.0), ("steady", 45.0))]


@pytest.fixture(scope="module")
def comparison(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(runs, tmp_path_factory.mktemp("comparison"), {"ink": 0.5})


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons without pictures, which take longer than all the rest."""
    monkeypatch.setattr("fedmtl.compare._draw", lambda runs, out: [])


def row(comparison: Comparison, name: str) -> tuple[str, ...]:
    return next(cells[1:] for cells in comparison.rows if cells[0] == name)


def seconds(cell: str) -> float:
    return float(cell.removesuffix(" s").replace(",", ""))


@pytest.mark.slow
def test_there_is_a_column_per_run(comparison: Comparison) -> None:
    assert comparison.header == ("", "quick", "steady")
    assert {len(cells) for cells in comparison.rows} == {3}
    assert row(comparison, "strategy") == ("quick", "steady")
    assert row(comparison, "updates applied") == ("600", "600")


@pytest.mark.usefixtures("undrawn")
def test_settings_in_which_runs_differ_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(name, versions=12) for name in ("even", "skewed")]
    for run, alpha in zip(runs, (100.0, 0.1), strict=True):
        text = f'seed = 1\n[data]\nalpha = {alpha}\nclients = 5\n[strategy]\nname = "fedbuff"\nbuffer_size = 3\n'
        (run / "experiment.toml").write_text(text)
    found = compare(runs, tmp_path)
    assert [cells for cells in found.rows if "." in cells[0] and ":" not in cells[0]] == [
        ("data.alpha", "100.0", "0.1")
    ]
    (runs[0] / "experiment.toml").write_text('[data]\nalpha = 0.1\nclients = 5\n[strategy]\nname = "fedqs"\n')
    assert not any(cells[0].startswith(("data.", "strategy.")) for cells in compare(runs, tmp_path).rows)
    (runs[0] / "experiment.toml").write_text('[strategy]\nname = "fedbuff"\nbuffer_size = 9\n')
    found = compare(runs, tmp_path)
    assert row(found, "strategy.buffer_size") == ("9", "3")
    assert row(found, "data.clients") == ("-", "5")


@pytest.mark.usefixtures("undrawn")
def test_files_differ_by_their_contents(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(name, versions=12) for name in ("here", "there")]
    contents = [b"some", b"some"]

    def differing() -> list[tuple[str, ...]]:
        for run, content in zip(runs, contents, strict=True):
            table = run / "table.npz"
            table.write_bytes(content)
            (run / "experiment.toml").write_text(f'[data]\nsource = "files"\npath = "{table}"\n')
            write_inputs(run, {"data.path": read_input("data.path", str(table))})
        return [cells for cells in compare(runs, tmp_path).rows if cells[0].startswith("data.")]

    assert differing() == []
    contents[1] = b"others"
    ((key, *cells),) = differing()
    assert key == "data.path"
    assert [cell.partition(" ")[0] for cell in cells] == ["table.npz", "table.npz"]
    assert cells[0] != cells[1]


def test_the_faster_learner_is_better_sooner_and_ranks_first(comparison: Comparison) -> None:
    quick, steady = row(comparison, "digit: accuracy, mean (higher is better)")
    assert float(quick) > float(steady)
    assert row(comparison, mean_rank("mean")) == ("1.00", "2.00")


def test_without_a_target_the_times_are_to_what_every_run_reached(comparison: Comparison) -> None:
    (cells,) = [cells for cells in comparison.rows if cells[0].startswith("digit: time to")]
    assert seconds(cells[1]) < seconds(cells[2])


def test_a_target_may_be_reached_by_one_run_only(comparison: Comparison) -> None:
    quick, steady = row(comparison, "ink: time to 0.5")
    assert seconds(quick) > 0
    assert steady == "not reached"


def test_fairness_between_clients_is_shown_for_every_task(comparison: Comparison) -> None:
    for task in ("digit", "parity", "ink", "asymmetry"):
        assert len(row(comparison, f"{task}: last, worst tenth of the clients")) == 2
        assert len(row(comparison, f"{task}: last, slower half of the clients")) == 2


def test_the_pictures_are_written(comparison: Comparison) -> None:
    assert [path.name for path in comparison.plots] == ["compare-by-time.png", "compare-by-version.png"]
    assert all(path.stat().st_size > 10_000 for path in comparison.plots)


@pytest.mark.usefixtures("undrawn")
def test_runs_of_the_same_name_are_told_apart_by_their_paths(
    runs: list[Path], make_run: MakeRun, tmp_path: Path
) -> None:
    again = make_run("quick", versions=12)
    assert compare([runs[0], again], tmp_path).header == ("", str(runs[0]), str(again))


@pytest.mark.usefixtures("undrawn")
def test_delta_m_is_shown_where_a_run_has_single_task_baselines(
    runs: list[Path], make_run: MakeRun, tmp_path: Path
) -> None:
    alone = make_run("alone", versions=60, rate=30.0)
    summary = read_summary(alone)
    single_task = {task["name"]: {"value": task["mean_of_last"], "directory": ""} for task in summary["tasks"]}
    write_summary(alone, {**summary, SINGLE_TASK: against_single_task(summary, single_task)})
    found = compare([runs[0], alone], tmp_path)
    assert row(found, "delta-m by metric (lower is better)") == ("-", "+0.00 %")
    assert row(found, "delta-m by task (lower is better)") == ("-", "+0.00 %")
    assert row(found, "ink: change from the task alone (+ is worse)") == ("-", "+0.00 %")
    assert not any("delta-m" in cells[0] for cells in compare(runs, tmp_path).rows)


@pytest.mark.usefixtures("undrawn")
def test_equals_share_the_mean_of_their_ranks(make_run: MakeRun, tmp_path: Path) -> None:
    twins = [make_run(f"twin{number}", versions=12) for number in range(2)]
    assert row(compare(twins, tmp_path), mean_rank("mean")) == ("1.50", "1.50")


def test_what_cannot_be_compared_is_refused_and_nothing_is_written(
    runs: list[Path], make_run: MakeRun, tmp_path: Path
) -> None:
    other = make_run("other", [Task("label", "classification", 10)], versions=12)
    out = tmp_path / "comparison"
    for directories, targets, message in (
        (runs[:1], None, "at least two"),
        ([runs[0], runs[0]], None, "named twice"),
        ([runs[0], tmp_path], None, "holds no finished run"),
        ([runs[0], other], None, r"quick and other learn different tasks.*digit \(accuracy\).*label \(accuracy\)"),
        (runs, {"colour": 0.5}, "no task 'colour'.*known: digit, parity, ink, asymmetry"),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            compare(directories, out, targets)
    assert not out.exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("by", "ranks"), [("mean", ("1.00", "2.00")), ("last", ("1.00", "2.00")), ("time", ("1.00", "2.00"))]
)
def test_runs_are_ranked_by_what_is_asked_for(
    runs: list[Path], tmp_path: Path, by: RankBy, ranks: tuple[str, ...]
) -> None:
    found = compare(runs, tmp_path, {"digit": 0.5, "parity": 0.5, "ink": 1.0, "asymmetry": 1.0}, by)
    assert row(found, mean_rank(by)) == ranks


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_few_evaluations_is_not_ranked_by_how_it_began(tmp_path: Path) -> None:
    """One learns late and ends well, the other has learned all it will at once: the mean of all would prefer it."""
    runs = {"late": (9.0, 9.0, 0.9, 0.1, 0.1), "early": (2.0, 1.0, 1.0, 1.0, 1.0)}
    tasks, told = (
        [Task("ink", "regression")],
        {"strategy": "s", "seed": 0, "ended": "", "time": 9.0, "wall_seconds": 1.0},
    )
    for name, errors in runs.items():
        recorder = Recorder(tmp_path / name, tasks)
        for place, error in enumerate(errors):
            recorder.add_evaluation([EvaluationRow(3 * place, 3.0 * place, "ink", "mse", error, "test")])
        recorder.finish()
        write_summary(tmp_path / name, summarise(recorder, name=name, **told))
    late, early = (tmp_path / name for name in runs)
    found = compare([late, early], tmp_path)
    assert row(found, mean_rank("mean")) == ("1.00", "2.00")
    assert row(found, "ink: mse, mean (lower is better)") == ("0.1", "1")
    assert row(found, "means are over") == ("versions 9 to 12, 2 evaluations",) * 2
    assert row(compare([late, early], tmp_path, by="time"), mean_rank("time")) == ("2.00", "1.00")
    assert row(compare([late, early], tmp_path, by="best"), "ink: mse, best (lower is better)") == ("0.1", "1")
