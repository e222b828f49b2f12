"""Experiments that read files: where these lie does not matter, what is in them does."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedmtl.errors import DataError
from fedmtl.protocol import Event
from simulations import Experiment, run
from simulations.baselines import Baseline, baselines, fingerprint, is_there, train
from simulations.studies.file import load_study
from strategies.core.loop import Loop, Observer

TOML = """
[data]
source = "files"
path = "table.npz"
targets = { y = "binary", z = "regression" }
clients = 4
partition = "iid"
[devices]
kind = "trace"
file = "speeds.csv"
[strategy]
name = "fedbuff"
buffer_size = 2
[balancing]
name = "equal"
[stop]
versions = 4
[records]
checkpoint_every = 1
"""


class Interruption(Observer):
    """Interrupts the loop after two versions."""

    def after_event(self, loop: Loop, event: Event) -> None:
        if loop.strategy.model.version >= 2:
            loop.interrupt()


def fill(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    x = np.random.default_rng(seed).normal(size=(80, 2))
    np.savez(folder / "table.npz", x=x, y=x[:, 0] > 0, z=x[:, 1])
    (folder / "speeds.csv").write_text("client,seconds_per_order\n" + "".join(f"{k},{k + 1}\n" for k in range(4)))
    (folder / "experiment.toml").write_text(TOML)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return fill(tmp_path / "project")


def load(folder: Path, *overrides: str) -> Experiment:
    return Experiment.load(folder / "experiment.toml", overrides)


def interrupted(project: Path) -> Path:
    out = project.parent / "run"
    assert run(load(project), out, observers=[Interruption()], pictures=False).interrupted
    return out


def test_a_run_keeps_absolute_paths_and_what_it_read(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(load(project), out, pictures=False)
    kept = tomllib.loads((out / "experiment.toml").read_text())
    assert kept["data"]["path"] == str(project / "table.npz")
    assert kept["devices"]["file"] == str(project / "speeds.csv")
    assert Experiment.load(out / "experiment.toml").digest == load(project).digest
    read = json.loads((out / "inputs.json").read_text())
    assert set(read) == {"data.path", "devices.file"}
    assert read["data.path"]["path"] == str(project / "table.npz")
    assert len(read["data.path"]["sha256"]) == 64
    run(Experiment.load(overrides=["stop.versions=1", "data.clients=12"]), out, overwrite=True, pictures=False)
    assert not (out / "inputs.json").exists()


def test_a_moved_folder_is_the_same_experiment_and_another_table_is_another(project: Path) -> None:
    first = load(project).digest
    moved = project.rename(project.with_name("moved"))
    assert load(moved).digest == first
    fill(moved, seed=1)
    assert load(moved).digest != first
    fill(moved)
    assert load(moved).digest == first
    (moved / "speeds.csv").write_text((moved / "speeds.csv").read_text().replace("3,4", "3,5"))
    assert load(moved).digest != first


@pytest.mark.slow
def test_a_resume_with_other_contents_is_refused_and_names_the_file(project: Path) -> None:
    out = interrupted(project)
    kept = Experiment.load(out / "experiment.toml")
    fill(project, seed=1)
    with pytest.raises(DataError, match=rf"data\.path: {project}/table\.npz has changed since the run in {out} began"):
        run(Experiment.load(out / "experiment.toml"), out, resume=True, pictures=False)
    fill(project)
    assert not run(kept, out, resume=True, pictures=False).interrupted


def test_a_resume_goes_on_where_the_folder_was_moved_to(project: Path) -> None:
    out = interrupted(project)
    moved = project.rename(project.with_name("moved"))
    kept = out / "experiment.toml"
    with pytest.raises(DataError, match=rf"table\.npz': there is no such file .* write its place into {kept}"):
        run(Experiment.load(kept), out, resume=True, pictures=False)
    kept.write_text(kept.read_text().replace(str(project), str(moved)))
    assert run(Experiment.load(kept), out, resume=True, pictures=False).ended == "4 versions were made"


def test_a_changed_file_of_a_folder_is_named(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "run"
    datasets = pytest.importorskip("datasets")
    rows = {"age": list(range(60)), "education.num": [1] * 60, "capital.gain": [0] * 60, "capital.loss": [0] * 60}
    rows |= {"hours.per.week": [40] * 60, "income": ["<=50K", ">50K"] * 30}
    names = ("workclass", "marital.status", "occupation", "relationship", "race", "sex", "native.country")
    datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict(rows | {name: ["a", "b", "c"] * 20 for name in names})}
    ).save_to_disk(str(folder))
    overrides = ["data.source=hub", "data.dataset=adult", f"data.path={folder}", "data.clients=4"]
    overrides += ["balancing.name=equal", "strategy.buffer_size=2", "stop.versions=3"]
    experiment = Experiment.load(overrides=overrides)
    assert run(experiment, out, observers=[Interruption()], pictures=False).interrupted
    state = folder / "train" / "state.json"
    state.write_text(state.read_text() + "\n")
    with pytest.raises(DataError, match=rf"data\.path: {state} has changed"):
        run(Experiment.load(out / "experiment.toml"), out, resume=True, pictures=False)


def test_a_moved_folder_keeps_its_baselines(project: Path, tmp_path: Path) -> None:
    baseline: Baseline = baselines(load(project))[0]
    assert train(baseline, tmp_path / "baselines")
    moved = project.rename(project.with_name("moved"))
    again = baselines(load(moved))[0]
    assert again.key == baseline.key == fingerprint(again.experiment)
    assert is_there(again, tmp_path / "baselines")
    fill(moved, seed=1)
    assert not is_there(baselines(load(moved))[0], tmp_path / "baselines")


def test_paths_in_a_study_are_relative_to_its_file(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = TOML.replace("[", "[base.")
    axes = '[axes.speeds.here.devices]\nfile = "speeds.csv"\n[axes.speeds.other.devices]\nfile = "more/speeds.csv"\n'
    (project / "study.toml").write_text(f"seeds = 1\n{base}\n{axes}")
    monkeypatch.chdir(tmp_path)
    cells = load_study(Path("project/study.toml")).cells()
    tables = [Experiment.load(tables=cell.tables).tables for cell in cells]
    assert [table["devices"]["file"] for table in tables] == [
        str(project / "speeds.csv"),
        str(project / "more" / "speeds.csv"),
    ]
    assert {table["data"]["path"] for table in tables} == {str(project / "table.npz")}
