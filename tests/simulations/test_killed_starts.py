"""Runs that are killed right before any change of their directory: it holds the old run, the new one, or none."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmtl.errors import RunDirectoryError
from simulations import Experiment, run
from simulations.directory import EXPERIMENT, STARTING, RunDirectory
from simulations.lock import LOCK
from strategies.core.loop import Loop, Observer

SMALL = [
    "name=small",
    *("data.clients=8", "data.alpha=1.0", "stop.versions=2", "strategy.buffer_size=2"),
    *("records.checkpoint_every=1", "records.evaluate_every=2"),
]
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


def killed_before(change: int, directory: Path, action: Callable[[], object]) -> bool:
    """Do something in a child process that is killed right before it changes the directory for the n-th time.

    Whether it came to that. What is below the directory is changed by its path, or relative to an open folder.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    changes = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES and not (event == "open" and arguments[2] & WRITES):
            return
        path = os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else ""
        if path.startswith(str(directory)) or (event != "open" and not path.startswith("/")):
            changes += 1
            if changes == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def results(directory: Path) -> dict[str, bytes]:
    names = ("updates.parquet", "aggregations.parquet", "evaluations.parquet", "model.safetensors", EXPERIMENT)
    return {name: (directory / name).read_bytes() for name in (*names, "partition.parquet", "devices.parquet")}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("new") / "run"
    run(small(), directory, pictures=False)
    return directory


def go_on(directory: Path, experiment: Experiment) -> None:
    """Whatever a killed process left: go on with the run that is there, or start the one that was wanted."""
    RunDirectory(directory).check(resume=False, overwrite=True)
    if (directory / "summary.json").exists():
        return
    if (directory / EXPERIMENT).exists():
        run(Experiment.load(directory / EXPERIMENT), directory, resume=True, pictures=False)
    else:
        run(experiment, directory, pictures=False)


@pytest.mark.parametrize("change", range(1, 9))
def test_a_start_that_was_killed_needs_nothing_but_the_same_command(new: Path, tmp_path: Path, change: int) -> None:
    directory = tmp_path / "run"
    assert killed_before(change, directory, lambda: run(small(), directory, pictures=False))
    if not (directory / EXPERIMENT).exists() and directory.exists():
        with pytest.raises(RunDirectoryError, match="holds no run to resume"):
            run(small(), directory, resume=True, pictures=False)
    go_on(directory, small())
    assert results(directory) == results(new)
    assert not {STARTING, LOCK} & {path.name for path in directory.iterdir()}


@pytest.mark.slow
def test_a_kill_at_any_moment_of_an_overwriting_run_leaves_the_old_run_or_the_new_one_or_none(
    new: Path, tmp_path: Path
) -> None:
    old, seen = tmp_path / "old", set()
    run(small("seed=1"), old, pictures=False)
    known = {"old": results(old), "new": results(new)}
    for change in itertools.count(1, 2):  # every other one, for the sake of time
        directory = Path(shutil.copytree(old, tmp_path / f"before change {change}"))
        if not killed_before(change, directory, lambda: run(small(), directory, overwrite=True, pictures=False)):  # noqa: B023
            break
        go_on(directory, small())
        seen.update(name for name, expected in known.items() if results(directory) == expected)
        assert results(directory) in known.values(), change
        shutil.rmtree(directory)
    assert change > 40
    assert seen == {"old", "new"}


@pytest.mark.parametrize("name", ["partition.parquet", "devices.parquet", ".partition.parquet.tmp"])
def test_what_a_start_of_an_older_version_left_goes_with_overwrite_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(
        RunDirectoryError, match=rf"holds {name}, as a run leaves it whose start was cut short; use --ov"
    ):
        run(small(), tmp_path, pictures=False)
    assert (tmp_path / name).exists()
    run(small(), tmp_path, overwrite=True, pictures=False)


@pytest.mark.parametrize("name", ["thesis.tex", "data.parquet", "updates.parquet", "plots", "checkpoint", ".notes.tmp"])
def test_what_no_start_leaves_is_refused_even_with_overwrite_and_not_removed(tmp_path: Path, name: str) -> None:
    """Even if a start's leftovers lie beside it."""
    (tmp_path / name).mkdir()
    (tmp_path / "partition.parquet").touch()
    with pytest.raises(RunDirectoryError, match="is not empty and holds no run"):
        run(small(), tmp_path, overwrite=True, pictures=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "partition.parquet"])


def test_overwrite_leaves_tables_and_temporary_files_alone_that_are_no_runs(new: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(new, tmp_path / "run"))
    for name in ("my data.parquet", ".notes.tmp"):
        (directory / name).write_text("mine")
    run(small(), directory, overwrite=True, pictures=False)
    assert [(directory / name).read_text() for name in ("my data.parquet", ".notes.tmp")] == ["mine", "mine"]


def test_a_folder_that_cannot_be_removed_is_no_part_of_the_next_run(new: Path, tmp_path: Path) -> None:
    """Such as a checkpoint folder that is a link to another disk: the link goes, what it leads to stays."""
    directory, elsewhere = Path(shutil.copytree(new, tmp_path / "run")), tmp_path / "elsewhere"
    (directory / "checkpoint").rename(elsewhere)
    (directory / "checkpoint").symlink_to(elsewhere)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    run(small("seed=1"), directory, overwrite=True, pictures=False)
    assert not (directory / "checkpoint").is_symlink()
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before


class InterruptAtFirstVersion(Observer):
    """Interrupts the loop, as a signal does."""

    def after_event(self, loop: Loop, event: object) -> None:
        if loop.strategy.model.version == 1:
            loop.interrupt()


def test_tables_of_the_setting_that_were_removed_or_damaged_are_written_again_by_a_resume(
    new: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    run(small(), directory, pictures=False, observers=[InterruptAtFirstVersion()])
    (directory / "partition.parquet").unlink()
    (directory / "devices.parquet").write_bytes(b"half")
    run(small(), directory, resume=True, pictures=False)
    assert results(directory) == results(new)
