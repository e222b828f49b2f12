"""What relative paths in a configuration are relative to."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fedmtl.components import path_options
from fedmtl.config import parse_config, read_toml, to_toml
from fedmtl.data.build import data_options
from fedmtl.data.sources import SOURCES
from fedmtl.errors import ConfigError
from fedmtl.paths import absolute, written
from fedmtl.run_config import experiment_config
from simulations.devices import DEVICES, device_options

DATA = 'data = { source = "files", path = "x.npz", test_path = "../t.npz", targets = { y = "binary" } }\n'
TRACE = 'devices = { kind = "trace", file = "speeds.csv" }\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with an experiment in it, which is not the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "experiment.toml").write_text(DATA + TRACE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


def test_every_option_that_is_read_from_is_known_as_a_path() -> None:
    assert {name: path_options(build) for name, build in SOURCES.items() if path_options(build)} == {
        "hub": ["path"],
        "files": ["path", "test_path"],
    }
    assert {name: path_options(build) for name, build in DEVICES.items() if path_options(build)} == {"trace": ["file"]}


def test_paths_in_a_file_are_relative_to_its_folder(project: Path) -> None:
    for file in (project / "experiment.toml", Path("../project/experiment.toml")):
        config = parse_config(read_toml(file))
        options = data_options(config)
        assert Path(options["path"]).resolve() == project / "x.npz"
        assert Path(options["path"]).is_absolute()
        assert Path(options["test_path"]).resolve() == project.parent / "t.npz"
        assert Path(device_options(config.devices)["file"]).resolve() == project / "speeds.csv"


def test_paths_that_are_set_are_relative_to_the_working_directory(project: Path) -> None:
    config = parse_config(read_toml(project / "experiment.toml"), ["data.path=mine.npz", "devices.file=/abs/s.csv"])
    options = data_options(config)
    assert options["path"] == str(Path.cwd() / "mine.npz")
    assert Path(options["test_path"]).resolve() == project.parent / "t.npz"
    assert device_options(config.devices)["file"] == "/abs/s.csv"


def test_paths_from_python_are_relative_to_the_working_directory_of_that_moment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"data": {"source": "hub", "path": "mnist"}}
    config, then = parse_config(tables), Path.cwd()
    monkeypatch.chdir(project)
    assert data_options(config)["path"] == str(then / "mnist")
    assert data_options(parse_config({"data": {"source": "hub"}}))["path"] == ""


@pytest.mark.parametrize("run_config", [{"experiment": DATA}, {"set": "data.source=hub;data.path=mnist"}])
def test_relative_paths_that_are_sent_are_refused_with_the_remedy(run_config: dict[str, str]) -> None:
    message = (
        r"data\.path = '.*': is relative, and a configuration that is sent lies in no folder: write an absolute path"
    )
    with pytest.raises(ConfigError, match=message):
        data_options(experiment_config(run_config))


def test_what_is_sent_may_be_absolute_or_name_a_file(project: Path) -> None:
    sent = data_options(experiment_config({"experiment": DATA, "set": "data.path=/d/x.npz; data.test_path=/d/t.npz"}))
    assert (sent["path"], sent["test_path"]) == ("/d/x.npz", "/d/t.npz")
    named = data_options(experiment_config({"experiment": str(project / "experiment.toml")}))
    assert named["path"] == str(project / "x.npz")


def test_a_text_keeps_its_folder_wherever_it_goes(project: Path) -> None:
    (text,) = written(["x.npz"], project)
    assert absolute(pickle.loads(pickle.dumps(text)), "data.path") == str(project / "x.npz")
    assert absolute(written({"path": [text]}, None)["path"][0], "data.path") == str(project / "x.npz")
    assert absolute("x.npz", "data.path") == str(Path.cwd() / "x.npz")
    assert to_toml({"path": text}) == 'path = "x.npz"\n'


def test_a_removed_working_directory_stops_only_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert data_options(parse_config({}, ["data.source=hub", "data.path=/d/mnist"]))["path"] == "/d/mnist"
