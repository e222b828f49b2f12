"""``fedmtl ntk`` as its users meet it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedmtl.records import SCHEMAS
from simulations.cli.app import app

SMALL = ["--set", "data.clients=12", "--set", "strategy.buffer_size=3", "--set", "stop.versions=3"]
QUICK = ["--examples", "30", "--clients", "4", "--steps", "5"]


def fedmtl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "small"
    assert fedmtl("run", *SMALL, "--set", "records.pictures=[]", "--out", directory).exit_code == 0
    return directory


@pytest.mark.slow
def test_it_prints_tables_and_writes_pictures_of_the_initial_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = fedmtl("ntk", *SMALL, *QUICK)
    assert result.exit_code == 0, result.output
    assert "version 0, 30 examples of 12 clients, kernels of the 6,240 shared parameters" in result.stdout
    for text in ("kernels of outputs", "kernels of losses", "asymmetry", "5 steps of gradient descent"):
        assert text in result.stdout
    names = {path.name for path in (tmp_path / "ntk").iterdir()}
    plots = (
        "spectra",
        "alignment-tasks",
        "alignment-clients",
        "decay",
        "decay-by-speed",
        "decay-by-skew",
        "directions",
    )
    assert names == {"ntk.parquet", "decay.parquet", *(f"{plot}.png" for plot in plots)}
    table = pq.read_table(tmp_path / "ntk/ntk.parquet")
    assert table.schema == SCHEMAS["ntk"]
    assert table.num_rows == 2 * 4 + 4 * (2 * 4 + 1)
    decay = pq.read_table(tmp_path / "ntk/decay.parquet")
    first = decay.filter(np.equal(decay["step"].to_numpy(), 0))
    assert np.allclose(first["predicted"].to_numpy(), first["measured"].to_numpy(), rtol=1e-12)


@pytest.mark.slow
def test_of_a_finished_run_it_measures_the_last_version(finished: Path) -> None:
    result = fedmtl("ntk", "--run", finished, *QUICK, "--heads")
    assert result.exit_code == 0, result.output
    assert "version 3, 30 examples" in result.stdout
    assert "kernels of the 6,669 parameters" in result.stdout
    table = pq.read_table(finished / "ntk/ntk.parquet")
    assert set(table["version"].to_pylist()) == {3}
    assert min(table["time"].to_pylist()) > 0


@pytest.mark.slow
def test_little_memory_is_enough(finished: Path, tmp_path: Path) -> None:
    result = fedmtl("ntk", "--run", finished, "--examples", "80", "--steps", "1", "--memory", "1", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Hutchinson" in result.stdout
    table = pq.read_table(tmp_path / "ntk.parquet")
    digit = table.filter(np.equal(table["task"].to_numpy(), "digit")).to_pylist()[0]
    assert digit["trace_error"] > 0
    assert digit["condition"] is None
    assert digit["alignment"] == []


@pytest.mark.slow
def test_a_model_without_shared_parameters_and_tasks_of_one_kind_work(tmp_path: Path) -> None:
    settings = [
        "data.source=synthetic-tasks",
        "data.partition=iid",
        "data.clients=5",
        "data.tasks=2",
        "model.name=linear",
    ]
    sets = [text for setting in settings for text in ("--set", setting)]
    result = fedmtl("ntk", *sets, *QUICK, "--out", tmp_path / "shared")
    assert result.exit_code == 0, result.output
    assert "kernels of the 0 shared parameters" in result.stdout
    assert fedmtl("ntk", *sets, *QUICK, "--heads", "--out", tmp_path / "all").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--run", "nowhere"], "nowhere holds no run"),
        (["--run", "nowhere", "--set", "seed=1"], "--run nowhere brings its own experiment; leave out --set\n"),
        (["--set", "data.source=digit"], "did you mean 'digits'?"),
        (["--rate", "0"], "--rate 0: must be a positive number"),
        (["--rate", "nan"], "--rate nan: must be a positive number"),
    ],
)
def test_wrong_input_is_refused(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = fedmtl("ntk", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_layout_or_a_damaged_one_is_refused(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("experiment.toml", "summary.json", "model.safetensors"):
        (other / name).write_bytes((finished / name).read_bytes())
    toml = other / "experiment.toml"
    toml.write_text(toml.read_text().replace('name = "mlp"', 'name = "mlp"\n').replace("64,\n    32,", "64,\n    16,"))
    result = fedmtl("ntk", "--run", other, *QUICK)
    assert result.exit_code == 2
    assert "holds another model: backbone." in result.stderr
    (other / "model.safetensors").write_bytes(b"nothing")
    result = fedmtl("ntk", "--run", other, *QUICK)
    assert result.exit_code == 2
    assert "cannot read the model in" in result.stderr
