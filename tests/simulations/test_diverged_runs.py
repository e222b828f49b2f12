"""Runs that diverge: they say so wherever they are looked at, and come after those that did not."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from fedmtl.compare import RankBy, compare, mean_rank
from fedmtl.records.single_task import against_single_task, finals_of
from fedmtl.records.summary import read_summary
from fedmtl.report import write_report
from simulations import Experiment, run
from simulations.baselines import baselines, read_value, train
from simulations.cli.progress import LineDisplay
from simulations.cli.run import _print_summary
from simulations.studies.results import outcomes
from simulations.studies.tuning import best_value, held_out
from strategies.core.loop import Loop, Observer

SMALL = [
    *("data.clients=6", "stop.versions=9", "records.evaluate_every=1", "records.checkpoint_every=2"),
    *("strategy.name=fedavgm", "strategy.clients_per_round=3", "balancing.name=equal"),
]
EXPLODES = "strategy.server_rate=50"
OVERFLOWS = ("strategy.server_rate=3e38", "training.learning_rate=100", "training.epochs=1", "data.clients=40")
"""A client's one step is long, and finite; so is the rate; what the server makes of them is not."""


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small(), tmp_path_factory.mktemp("sound") / "sound", pictures=False).directory


@pytest.fixture(scope="module")
def exploded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small(EXPLODES), tmp_path_factory.mktemp("exploded") / "exploded", pictures=False).directory


def strict_json(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text(), parse_constant=pytest.fail)
    return found


def test_the_summary_says_at_which_version_and_by_which_task(sound: Path, exploded: Path) -> None:
    summary = strict_json(exploded / "summary.json")
    diverged = summary["diverged"]
    assert isinstance(diverged, dict)
    assert diverged.keys() == {"version", "task", "why"}
    assert 3 <= diverged["version"] < 9
    assert "above 100 times that of version 0" in diverged["why"]
    assert (summary["versions"], summary["ended"]) == (9, "9 versions were made")
    assert strict_json(sound / "summary.json")["diverged"] is None


class Written(Observer):
    """Notes what a display had written when each version was made."""

    def __init__(self, output: StringIO) -> None:
        self.output, self.by_version = output, dict[int, str]()

    def on_aggregation(self, loop: Loop, aggregation: object) -> None:
        self.by_version[loop.strategy.model.version] = self.output.getvalue()


def test_the_console_says_so_once_when_it_happens_and_at_the_end(exploded: Path, tmp_path: Path) -> None:
    experiment, output = small(EXPLODES), StringIO()
    console = Console(file=output, width=120)
    with LineDisplay(console, experiment.config.stop) as display:
        written = Written(output)
        result = run(experiment, tmp_path / "run", observers=(display, written), pictures=False)
    version = result.summary["diverged"]["version"]
    line = f"the run has diverged at version {version}: task {result.summary['diverged']['task']}: "
    assert [line in text for text in written.by_version.values()] == [v >= version for v in written.by_version]
    assert output.getvalue().count("diverged") == 1
    _print_summary(console, result.summary, tmp_path / "run")
    assert output.getvalue().count("this run diverged at version") == 1


def test_a_run_that_did_not_diverge_says_nothing_of_it(sound: Path) -> None:
    output = StringIO()
    _print_summary(Console(file=output, width=120), read_summary(sound), sound)
    assert "diverged" not in output.getvalue()
    assert "means are over versions 5 to 9, 5 evaluations" in output.getvalue()


def test_it_ends_where_it_diverged_if_it_is_asked_to(exploded: Path, tmp_path: Path) -> None:
    version = read_summary(exploded)["diverged"]["version"]
    result = run(small(EXPLODES, "stop.diverged=true"), tmp_path / "run", pictures=False)
    assert result.summary["versions"] == version
    assert result.summary["diverged"] == read_summary(exploded)["diverged"]
    assert result.ended.startswith(f"the run diverged at version {version}: task ")


class InterruptAt(Observer):
    """Asks for an interruption at a version."""

    def __init__(self, version: int) -> None:
        self.version = version

    def on_aggregation(self, loop: Loop, aggregation: object) -> None:
        if loop.strategy.model.version == self.version:
            loop.interrupt()


@pytest.mark.parametrize("cut", [1, 2])
def test_a_resumed_run_diverges_where_the_whole_one_does(exploded: Path, tmp_path: Path, cut: int) -> None:
    experiment = small(EXPLODES, "stop.diverged=true")
    assert cut < read_summary(exploded)["diverged"]["version"]
    assert run(experiment, tmp_path / "run", observers=(InterruptAt(cut),), pictures=False).interrupted
    result = run(experiment, tmp_path / "run", resume=True, pictures=False)
    assert result.summary["diverged"] == read_summary(exploded)["diverged"]
    assert result.summary["versions"] == result.summary["diverged"]["version"]


def test_a_server_step_that_overflows_is_not_taken_and_ends_the_run(tmp_path: Path) -> None:
    result = run(small(*OVERFLOWS), tmp_path / "run")
    diverged = result.summary["diverged"]
    assert result.ended == diverged["why"]
    assert "server step after version" in result.ended
    assert "lower training.learning_rate" in result.ended
    assert diverged["version"] == result.summary["versions"] + 1
    assert diverged["task"] is None
    assert strict_json(tmp_path / "run" / "summary.json")["diverged"] == diverged
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in model.values())
    assert result.summary["updates"]["unsettled"] == 3
    assert "server step" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_the_report_says_so_at_its_top(exploded: Path, sound: Path) -> None:
    page = write_report(exploded, formats=()).read_text(encoding="utf-8")
    assert page.index('class="warning">This run diverged at version') < page.index("<h2>")
    assert 'class="warning"' not in write_report(sound, formats=()).read_text(encoding="utf-8")


@pytest.mark.parametrize("by", ["mean", "last", "best", "time"])
def test_it_never_ranks_first_whatever_runs_are_ranked_by(
    exploded: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: RankBy
) -> None:
    monkeypatch.setattr("fedmtl.compare._draw", lambda runs, out: [])  # tests of pictures are elsewhere
    rows = {cells[0]: cells[1:] for cells in compare([exploded, sound], tmp_path, by=by).rows}
    assert rows[mean_rank(by)] == ("2.00", "1.00")
    version, task = (read_summary(exploded)["diverged"][key] for key in ("version", "task"))
    assert rows["diverged"] == (f"version {version}, {task}", "-")


def test_a_study_has_no_numbers_of_it_and_chooses_no_setting_with_it(exploded: Path, sound: Path) -> None:
    lost, kept = outcomes(exploded, {"digit": 0.1}), outcomes(sound, {"digit": 0.1})
    assert {outcome.diverged_at for outcome in lost} == {read_summary(exploded)["diverged"]["version"]}
    assert {outcome.diverged_at for outcome in kept} == {-1}
    for outcome in lost:
        assert np.isnan([outcome.final, outcome.worst_clients, outcome.time_to_target, outcome.stable_at]).all()
    assert all(np.isfinite([outcome.final, outcome.worst_clients]).all() for outcome in kept)
    assert np.isnan(held_out(exploded)[1]).all()
    assert best_value({50: [exploded], 1: [sound]}) == 1
    assert best_value({50: [exploded, sound], 1: [sound, sound]}) == 1


def test_nothing_is_measured_against_a_single_task_model_that_diverged(sound: Path, tmp_path: Path) -> None:
    alone = next(b for b in baselines(small(EXPLODES, "stop.versions=6")) if b.task == "ink")
    assert train(alone, tmp_path)
    assert np.isnan(read_value(alone, tmp_path))
    summary = read_summary(sound)
    values = {task["name"]: {"value": task["mean_of_last"]} for task in summary["tasks"]}
    found = against_single_task(summary, values | {"ink": {"value": read_value(alone, tmp_path)}})
    assert found["problem"] == "ink: the single-task model has diverged"
    assert found["delta_m"] is found["tasks"]["ink"]["change"] is None
    assert found["tasks"]["digit"]["change"] == 0.0


def test_a_run_that_diverged_has_no_change_from_single_task_models(exploded: Path) -> None:
    summary = read_summary(exploded)
    found = against_single_task(summary, {task["name"]: {"value": 1.0} for task in summary["tasks"]})
    assert found["problem"] == "the run has diverged"
    assert found["delta_m"] is None
    assert {task["change"] for task in found["tasks"].values()} == {None}
    assert np.isnan(finals_of(summary)).all()
