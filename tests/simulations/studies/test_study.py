"""Studies: axes become experiments, and experiments become a table."""

from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from fedmtl.errors import ConfigError, RunDirectoryError
from fedmtl.records import read_summary, write_summary
from fedmtl.results import RESULTS
from simulations.studies.file import load_study
from simulations.studies.plots import draw
from simulations.studies.results import _drops, _reached, _rows, choice_table, collect, interval, value_at, write_table
from simulations.studies.run import chosen, run_cell, run_directory, run_study, with_other_results
from simulations.studies.study import merged
from simulations.studies.tuning import best_value

TINY = """
name = "tiny"
seeds = 2
[base.data]
clients = 12
[base.stop]
versions = 4
[base.records]
evaluate_every = 1
[axes.strategy.buffered.strategy]
name = "fedbuff"
buffer_size = 3
[axes.strategy.synchronous.strategy]
name = "fedavg"
[axes.speed.equal.devices]
kind = "homogeneous"
[axes.speed."1:9".devices]
ratio = 9
[targets]
digit = 0.05
"""


def write(tmp_path: Path, text: str = TINY) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


def test_every_combination_of_labels_and_seeds_is_an_experiment(tmp_path: Path) -> None:
    cells = load_study(write(tmp_path)).cells()
    assert len(cells) == len({cell.name for cell in cells}) == 8
    first = cells[0]
    assert first.name == "buffered--equal--seed0"
    assert first.tables["strategy"] == {"name": "fedbuff", "buffer_size": 3}
    assert first.tables["devices"] == {"kind": "homogeneous"}
    assert first.tables["data"] == {"clients": 12}


def test_a_component_that_is_named_anew_drops_the_options_of_the_older_one() -> None:
    under = {"strategy": {"name": "fedqs", "a": 0.1}, "data": {"clients": 3}}
    assert merged(under, {"strategy": {"name": "fedbuff"}, "data": {"alpha": 1}}) == {
        "strategy": {"name": "fedbuff"},
        "data": {"clients": 3, "alpha": 1},
    }
    unnamed = {"devices": {"jitter": 0.1}}
    assert merged(unnamed, {"devices": {"kind": "normal"}}) == {"devices": {"kind": "normal", "jitter": 0.1}}
    assert merged(under, {"strategy": {"name": "fedqs", "k": 1}})["strategy"] == {"name": "fedqs", "a": 0.1, "k": 1}


def test_steps_stand_in_the_place_of_epochs_and_the_other_way_round() -> None:
    epochs, steps = ({"training": {"batch_size": 5, **given}} for given in ({"epochs": 2}, {"steps": 3}))
    assert merged(epochs, {"training": {"steps": 3}}) == steps
    assert merged(steps, {"training": {"epochs": 2}}) == epochs


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "fedbuff"', 'name = "fedbuf"', "buffered.*fedbuf.*did you mean 'fedbuff'"),
        ("seeds = 2", "seeds = 0", "positive number of seeds"),
        ("[targets]", "[aims]", "aims is not a key"),
        ("versions = 4", "version = 4", "stop.version"),
        ("seeds = 2", 'highlight = ["equal"]', "highlight.*labels of the axis 'strategy'"),
        ("seeds = 2", "seeds = [3, 4, 3]", "seeds.*twice"),
        ('name = "tiny"', 'name = "tiny/study"', "name = 'tiny/study'.*directory"),
        ('name = "tiny"', "name = 3", "name = 3"),
        ("[axes.speed.equal.devices]\nkind", "[axes.speed]\nequal", "axes.speed.equal = 'homogeneous': is a table"),
        ("axes.speed", "axes.seed", "axes.seed: the results have a column"),
        ("axes.speed", "axes.task", "axes.task: the results have a column"),
        ("speed.equal", 'speed."1 9"', "buffered, 1 9 and buffered, 1:9 would share a directory"),
        ("[targets]\ndigit = 0.05", "[targets]\ndigit = 'high'", "targets.digit = 'high': write a number"),
        ("[targets]\ndigit = 0.05", "[targets]\ndigit = nan", "targets.digit = nan: write a number"),
    ],
)
def test_a_mistake_is_named_with_its_place_before_anything_runs(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, TINY.replace(old, new)))


@pytest.mark.parametrize("text", ["axes = 3", "targets = 3\n[axes.a.b.data]\nalpha = 1.0", "base = []\n[axes.a.b.c]"])
def test_what_should_be_a_table_and_is_not_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"a study needs|targets = 3|base = \[\]"):
        load_study(write(tmp_path, text))


def test_a_target_of_a_task_that_no_experiment_has_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, TINY.replace("digit = 0.05", "digt = 0.05")))
    with pytest.raises(ConfigError, match=r"targets\.digt is not a task of this study; known: digit, parity"):
        run_study(study, tmp_path / "out", workers=1, progress=lambda cell, fault: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow("ray")
def test_a_study_runs_in_parallel_goes_on_where_it_was_and_leaves_table_and_plots(tmp_path: Path) -> None:
    study, out, told = load_study(write(tmp_path)), tmp_path / "out", []
    assert run_study(study, out, workers=2, progress=lambda cell, fault: told.append((cell.name, fault))) == []
    assert sorted(told) == sorted((cell.name, None) for cell in study.cells())
    kept = run_directory(out, study.cells()[3]) / "summary.json"
    stamp = kept.stat().st_mtime_ns
    (run_directory(out, study.cells()[0]) / "summary.json").unlink()
    older = run_directory(out, study.cells()[1]) / "summary.json"
    older.write_text(older.read_text().replace(f'"results": {RESULTS}', f'"results": {RESULTS - 1}'))
    assert with_other_results(study, out) == 1
    told.clear()
    run_study(study, out, workers=1, progress=lambda cell, fault: told.append((cell.name, fault)))
    assert told == [(cell.name, None) for cell in study.cells()[:2]]
    assert with_other_results(study, out) == 0
    assert kept.stat().st_mtime_ns == stamp

    results = collect(study, out)
    assert results.num_rows == 8 * 4
    assert not any(math.isnan(value) for name in ("final", "same_time") for value in results[name].to_pylist())
    text = write_table(study, results, out).read_text()
    # The overall table, one for each place, and one for each task of each place.
    assert text.count("| buffered |") == text.count("| synchronous |") == 1 + 2 + 2 * 4
    assert all(picture.path.is_file() for picture in draw(study, results, out))
    with pytest.raises(RunDirectoryError, match="another study"):
        run_study(load_study(write(tmp_path, TINY.replace("ratio = 9", "ratio = 8"))), out, workers=1, progress=print)


@pytest.mark.slow("ray")
def test_an_experiment_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    text = TINY.replace('[axes.speed."1:9".devices]\nratio = 9', '[axes.speed."1:9".data]\nclients = 5000')
    study, out = load_study(write(tmp_path, text.replace("seeds = 2", "seeds = [3]"))), tmp_path / "out"
    failed = run_study(study, out, workers=2, progress=lambda cell, fault: None)
    assert {cell.labels["speed"] for cell, _ in failed} == {"1:9"}
    assert collect(study, out).num_rows == 2 * 4


def test_a_metric_at_a_time_is_the_mean_of_the_last_tenth_or_the_last_before() -> None:
    curve = np.array([0.0, 5.0, 9.5, 10.0, 11.0]), np.array([0.1, 0.2, 0.4, 0.6, 0.9])
    assert value_at(curve, 10.0) == pytest.approx(0.5)
    assert value_at(curve, 9.0) == pytest.approx(0.2)
    assert math.isnan(value_at((curve[0] + 20, curve[1]), 10.0))


def test_times_to_a_target_are_the_first_and_the_last_crossing() -> None:
    values, times = np.array([0.1, 0.6, 0.4, 0.7, 0.8]), np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert _reached(values, times, 0.5, True) == (1.0, 3.0)
    assert _reached(1 - values, times, 0.5, False) == (1.0, 3.0)
    first, stable = _reached(np.array([0.6, 0.1]), times[:2], 0.5, True)
    assert first == 0.0
    assert math.isnan(stable)
    assert all(map(math.isnan, _reached(values, times, 0.9, True)))


def test_a_label_that_diverged_is_told_and_leaves_the_best_of_the_others_bold() -> None:
    def row(final: float, worst: float) -> dict[str, float]:
        return {"final": final, "same_time": final, "worst_clients": worst, "drops_5": 0, "drops_10": 0}

    groups = {"bad": [row(math.nan, math.nan)], "good": [row(0.5, math.nan), row(0.5, math.nan)]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, bad, good = _rows("accuracy", groups, None)
    assert bad == "| bad | diverged | - | - | 0.0 | 0.0 | 1 |"
    assert good == "| good | **0.500 ± 0.000** | 0.500 | - | 0.0 | 0.0 | 2 |"
    *_, some = _rows("accuracy", {"some": [row(0.9, 0.9), row(math.nan, math.nan)]}, None)
    assert some == "| some | diverged (1 of 2) | - | - | 0.0 | 0.0 | 2 |"  # no mean of those that were lucky


def test_a_drop_of_just_five_points_is_none_of_more_than_five_however_it_is_rounded() -> None:
    just = np.arange(100, 20, -5) / 100
    assert {bool(step > 0.05) for step in -np.diff(just)} == {True, False}
    assert _drops(just, 5) == 0
    assert _drops(np.array([0.8, 0.748, 0.9, 0.84, 0.7]), 5) == 3
    assert _drops(np.array([0.8, 0.748, 0.9, 0.84, 0.7]), 10) == 1


def test_an_error_that_exploded_is_told_in_short() -> None:
    row = {"final": 1.5e30, "same_time": 2e28, "worst_clients": math.inf}
    *_, line = _rows("mse", {"bad": [row]}, None)
    assert line == "| bad | **1.5e+30** | 2e+28 | inf | 1 |"


def test_the_interval_is_students() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2) times the standard error
    assert math.isnan(interval([1.0])[1])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "simulations" / "studies").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_studies_that_come_along_are_right(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert study.cells()


TUNE = """
[tune]
key = "training.learning_rate"
values = [1e-4, 0.1]
seeds = [100]
per = ["strategy"]
at = { speed = "1:9" }
"""


@pytest.mark.slow("ray")
def test_a_setting_is_chosen_for_each_label_on_seeds_of_its_own_and_then_used(tmp_path: Path) -> None:
    study, out = load_study(write(tmp_path, TINY.replace("seeds = 2", "seeds = [0]") + TUNE)), tmp_path / "out"
    trials = study.trials()
    assert {(place, value): [c.seed for c in cells] for (place, value), cells in trials.items()} == {
        ((strategy,), value): [100] for strategy in ("buffered", "synchronous") for value in (1e-4, 0.1)
    }
    assert run_study(study, out, workers=2, progress=lambda cell, fault: None) == []
    choices = chosen(study, out)
    # A rate of 1e-4 moves nothing in four versions.
    assert choices == {("buffered",): 0.1, ("synchronous",): 0.1}
    assert all(cell.tables["training"]["learning_rate"] == 0.1 for cell in study.cells(choices))
    assert collect(study, out).num_rows == 4 * 4
    assert "0.1" in write_table(study, collect(study, out), out).read_text().split("training.learning_rate")[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [100]", "seeds = [1]", "the study itself has seed 1"),
        ("values = [1e-4, 0.1]", "values = [0.1]", "at least two"),
        ('per = ["strategy"]', "per = []", "name each axis in just one"),
        ('"1:9"', '"1:8"', r"tune\.at\.speed = '1:8' is not a label"),
        ("at = {", "on = {", "needs the keys"),
        ("training.learning_rate", "learning_rate", "section.key"),
        ("training.learning_rate", "training.rate", "training.rate"),
        ("values = [1e-4, 0.1]", "values = [0.1, 0.1]", "different numbers or texts"),
        ("values = [1e-4, 0.1]", 'values = [["digit"], ["ink"]]', "different numbers or texts"),
    ],
)
def test_a_mistake_in_what_is_to_be_chosen_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, TINY + TUNE.replace(old, new)))


def test_a_value_whose_runs_diverged_is_chosen_only_where_all_did_and_is_marked(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, TINY.replace("seeds = 2", "seeds = [0]") + TUNE))
    run_cell((study.cells()[0], str(tmp_path / "one")))
    one = run_directory(tmp_path / "one", study.cells()[0])
    for (place, value), cells in study.trials().items():
        for cell in cells:
            directory = shutil.copytree(one, run_directory(tmp_path / "out", cell))
            if place == ("buffered",) or value == 1e-4:
                found = {"version": 3, "task": "ink", "why": "it is long"}
                write_summary(directory, read_summary(directory) | {"diverged": found})
    assert chosen(study, tmp_path / "out") == {("buffered",): 1e-4, ("synchronous",): 0.1}
    lines = choice_table(study, tmp_path / "out")
    assert [line for line in lines if line.startswith(("| buffered", "| synchronous"))] == [
        "| buffered | 0.0001* |",
        "| synchronous | 0.1 |",
    ]
    assert any("diverged with every value" in line for line in lines)


def test_the_first_value_wins_a_tie_and_a_value_whose_runs_failed_is_not_chosen(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, TINY.replace("seeds = 2", "seeds = [0]")))
    cell = study.cells()[0]
    run_cell((cell, str(tmp_path)))
    run = run_directory(tmp_path, cell)
    assert best_value({0.0: [], 0.5: [run], 0.9: [run]}) == 0.5
    with pytest.raises(ConfigError, match="no run ended"):
        best_value({0.0: [], 0.5: [], 0.9: []})


def test_a_label_may_have_another_key_chosen(tmp_path: Path) -> None:
    instead = '[tune.instead.buffered]\nkey = "strategy.server_rate"\nvalues = [0.5, 1.0]\n'
    study = load_study(write(tmp_path, TINY + TUNE + instead))
    values = [(place, value) for place, value in study.trials()]
    assert values == [(("buffered",), 0.5), (("buffered",), 1.0), (("synchronous",), 1e-4), (("synchronous",), 0.1)]
    cells = study.cells({("buffered",): 0.5, ("synchronous",): 0.1})
    assert cells[0].tables["strategy"] == {"name": "fedbuff", "buffer_size": 3, "server_rate": 0.5}
    assert cells[-1].tables["training"] == {"learning_rate": 0.1}
    with pytest.raises(ConfigError, match=r"instead\.synchronus: needs a label of the axis 'strategy'"):
        load_study(write(tmp_path, TINY + TUNE + instead.replace("buffered", "synchronus")))
