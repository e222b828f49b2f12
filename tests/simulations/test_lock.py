"""The lock on a directory: real processes, real deaths."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedmtl.errors import RunDirectoryError
from simulations import Experiment, lock, run
from simulations.lock import LOCK, held
from strategies.core.loop import Loop, Observer

SMALL = ["name=small", "data.clients=8", "stop.versions=2", "strategy.buffer_size=3"]

HOLDER = """
import os, sys, time
from pathlib import Path
from simulations.lock import held
with held(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)  # when it holds nothing any more
    time.sleep(600)
"""


@contextmanager
def holder(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the directory, with a forked child, whose id is its first line."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLDER, str(directory)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def everything(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_who_comes_second_is_refused_and_told_who_is_there_until_that_one_dies(tmp_path: Path) -> None:
    """A run, a resume and an overwrite alike; and the holder's child, which lives on, holds nothing."""
    directory, experiment = tmp_path / "run", Experiment.load(None, SMALL)
    run(experiment, directory, pictures=False)
    with holder(directory) as process:
        before = everything(directory)
        for way in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(
                RunDirectoryError, match=f"run is in use by process {process.pid} on .*; wait until that"
            ):
                run(experiment, directory, pictures=False, **way)
        assert everything(directory) == before
        process.kill()
        process.wait()
        assert (directory / LOCK).exists()
        run(experiment, directory, overwrite=True, pictures=False)
    assert not (directory / LOCK).exists()


class Second(Observer):
    """Starts another run where one is under way, in this process."""

    def on_end(self, loop: Loop) -> None:
        with pytest.raises(RunDirectoryError, match=f"in use by process {os.getpid()} "):
            run(Experiment.load(None, SMALL), "run", overwrite=True, pictures=False)


def test_two_runs_of_one_process_do_not_share_a_directory_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(Experiment.load(None, SMALL), tmp_path / "run", pictures=False, observers=[Second()])
    assert result.summary["versions"] == 2


def test_directories_that_were_made_for_nothing_are_removed_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with held(tmp_path / "mine" / "a" / "b"):
        assert (tmp_path / "mine" / "a" / "b" / LOCK).exists()
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with held(tmp_path / "mine" / "a"):
        (tmp_path / "mine" / "a" / "result").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine", "result"]


def test_one_at_a_time_is_inside_however_often_the_file_and_the_directory_come_and_go(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0
    counting = threading.Lock()

    def enter_often() -> None:
        nonlocal inside, most, entered
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            try:
                with held(tmp_path / "a" / "b"):
                    with counting:
                        inside, entered = inside + 1, entered + 1
                        most = max(most, inside)
                    time.sleep(0)
                    with counting:
                        inside -= 1
            except RunDirectoryError as error:
                assert "in use by" in str(error)  # noqa: PT017 (others succeed)

    threads = [threading.Thread(target=enter_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert entered > 10
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_system_without_locks_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_lock", refuse)
    with held(tmp_path / "run"):
        pass
    assert "run: its file system has no locks (No locks available); see to it that no second" in caplog.text


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_where_no_directory_can_be_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="choose another --out"), held(tmp_path / name):
        pass
