"""What an experiment reads counts by its contents."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fedmtl import inputs
from fedmtl.errors import DataError, RunDirectoryError
from fedmtl.inputs import INPUTS, by_contents, read_input, recorded_inputs, write_inputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set"
    (path / "train").mkdir(parents=True)
    (path / "train" / "data.arrow").write_bytes(b"one")
    (path / "state.json").write_text("{}")
    return path


def sha256(path: Path) -> str:
    return read_input("data.path", str(path)).sha256


def test_a_file_is_its_contents(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(b"some")
    assert sha256(file) == hashlib.sha256(b"some").hexdigest()
    file.rename(tmp_path / "b.npz")
    assert sha256(tmp_path / "b.npz") == hashlib.sha256(b"some").hexdigest()


def test_a_folder_is_the_names_and_contents_of_its_files(folder: Path) -> None:
    first = sha256(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert sha256(moved) == first
    (moved / "cache-12.arrow").write_bytes(b"left by datasets")
    assert sha256(moved) == first
    (moved / "train" / "data.arrow").rename(moved / "train" / "other.arrow")
    renamed = sha256(moved)
    (moved / "train" / "other.arrow").write_bytes(b"another")
    assert len({first, renamed, sha256(moved)}) == 3
    assert set(read_input("data.path", str(moved)).files) == {"state.json", "train/other.arrow"}


def test_contents_are_read_once_as_long_as_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read = tmp_path / "a.npz", []
    usual = hashlib.file_digest
    monkeypatch.setattr(inputs.hashlib, "file_digest", lambda *given: read.append(1) or usual(*given))
    file.write_bytes(b"some")
    assert [sha256(file) for _ in range(3)] == [hashlib.sha256(b"some").hexdigest()] * 3
    assert len(read) == 1
    file.write_bytes(b"more than that")
    assert sha256(file) == hashlib.sha256(b"more than that").hexdigest()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"devices\.file = '.*no\.csv': there is no such file or folder"):
        read_input("devices.file", str(tmp_path / "no.csv"))


def test_a_hash_takes_the_place_of_a_path(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(b"some")
    tables = {"seed": 0, "data": {"path": str(file), "clients": 3}}
    assert by_contents(tables, {"data.path": read_input("data.path", str(file))}) == {
        "seed": 0,
        "data": {"path": sha256(file), "clients": 3},
    }
    assert tables["data"]["path"] == str(file)


def test_what_was_read_is_kept_in_the_runs_directory(tmp_path: Path, folder: Path) -> None:
    read = {"data.path": read_input("data.path", str(folder))}
    write_inputs(tmp_path, read)
    assert recorded_inputs(tmp_path) == read
    (tmp_path / INPUTS).write_text('{"data.path": 3}')
    with pytest.raises(RunDirectoryError, match=r"inputs\.json is damaged"):
        recorded_inputs(tmp_path)
    assert recorded_inputs(folder) is None
    write_inputs(folder, {})
    assert recorded_inputs(folder) is None
