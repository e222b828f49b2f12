"""The directory of a run: what may be there before, and what is there afterwards."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fedmtl.checkpoint import check_format
from fedmtl.config import to_toml
from fedmtl.errors import CheckpointError, DataError, RunDirectoryError
from fedmtl.files import check_path, replacing
from fedmtl.inputs import INPUTS, recorded_inputs, refuse_changes, write_inputs
from fedmtl.records.schemas import SCHEMAS
from fedmtl.records.setting import DEVICES_FILE, PARTITION_FILE, write_devices, write_partition
from fedmtl.records.summary import SUMMARY, read_summary
from simulations.experiment import Experiment
from simulations.lock import LOCK, held

EXPERIMENT = "experiment.toml"
MODEL = "model.safetensors"
REPORT = "report.html"
STARTING = ".starting"
"""Says that a fresh run is being set up here, and that what else a run leaves may go: written first, removed when
``experiment.toml`` is there."""

_FOLDERS = ("checkpoint", "records", "plots", "ntk")
_SETTING = (PARTITION_FILE, DEVICES_FILE, INPUTS, EXPERIMENT)
_TABLES = tuple(f"{name}.parquet" for name in SCHEMAS)
# What marks a run as finished goes first, then what makes it a run: what is left half-way is never taken for a whole.
_FILES = (SUMMARY, EXPERIMENT, MODEL, REPORT, PARTITION_FILE, DEVICES_FILE, INPUTS, *_TABLES)


def _temporary(name: str) -> str:
    """The name under which `replacing` writes a file."""
    return f".{name}.tmp"


_OF_A_START = {LOCK, STARTING, *_SETTING, *map(_temporary, _SETTING)} - {EXPERIMENT}
"""All that a start can leave which was cut short."""


class RunDirectory:
    """Where a run keeps what it leaves behind.

    Parameters
    ----------
    path
        The directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint."""
        return self.path / "checkpoint"

    @contextlib.contextmanager
    def held(self, *, resume: bool) -> Iterator[None]:
        """Meanwhile nobody else may run here; makes the directory of a fresh run.

        Raises
        ------
        RunDirectoryError
            If somebody else does, or there is no directory to resume in, or none can be made.
        """
        if resume and not self.path.exists():
            raise RunDirectoryError(f"{self.path} holds no run to resume: there is no such directory")
        with held(self.path):
            yield

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """See whether a run may start, or go on, here; changes nothing.

        Raises
        ------
        RunDirectoryError
            If the path cannot be used, the directory holds a run and neither `resume` nor `overwrite` is set, there is
            nothing to resume, or it holds something that is no run.
        CheckpointError
            If what is to be resumed is damaged, or was begun by a FedMTL whose state this one cannot read.
        """
        check_path(self.path / EXPERIMENT)
        path, holds_run = self.path, (self.path / EXPERIMENT).exists()
        there = {entry.name for entry in path.iterdir()} - {LOCK} if path.is_dir() else set()
        if resume:
            if not holds_run and STARTING in there:
                raise RunDirectoryError(
                    f"{path} holds no run to resume: its start was cut short; start it again, as it was started"
                )
            if not holds_run:
                raise RunDirectoryError(f"{path} holds no run to resume ({EXPERIMENT} is not there)")
            check_format(self.checkpoint)
        elif holds_run and not overwrite:
            state = "finished" if (path / SUMMARY).exists() else "unfinished"
            raise RunDirectoryError(
                f"{path} already holds a run ({state}); choose another --out, or use --overwrite"
                + ("" if state == "finished" else f" or --resume {path}")
            )
        elif there and not holds_run and STARTING not in there:
            if not there <= _OF_A_START:
                raise RunDirectoryError(f"{path} is not empty and holds no run; choose another --out")
            if not overwrite:
                raise RunDirectoryError(
                    f"{path} holds {min(there)}, as a run leaves it whose start was cut short; use --overwrite, or "
                    "choose another --out"
                )

    def check_experiment(self, experiment: Experiment) -> bool:
        """See whether the run that is here can go on as this experiment; whether it is to end elsewhere than before.

        Raises
        ------
        CheckpointError
            If it is a run of another configuration.
        RunDirectoryError
            If it is finished, and not to end later.
        """
        before = Experiment.load(self.path / EXPERIMENT)
        if before.config.records.convergence != experiment.config.records.convergence:
            raise CheckpointError(
                f"records.convergence: the tables in {self.path} began "
                + ("with its columns" if before.config.records.convergence else "without its columns")
                + ", and cannot go on otherwise; leave it as it was"
            )
        if before.digest != experiment.digest:
            raise CheckpointError(
                f"{self.path / EXPERIMENT} is another configuration; only the section [stop], and what changes no "
                "result, may differ where a run is resumed"
            )
        changed = before.config.stop != experiment.config.stop
        if (self.path / SUMMARY).exists() and not changed:
            ended = read_summary(self.path)["ended"]
            raise RunDirectoryError(
                f"the run in {self.path} is finished; there is nothing to resume: {ended}. To have it end later, set "
                "stop, as in --set stop.versions=800"
            )
        return changed

    def check_inputs(self, experiment: Experiment) -> None:
        """See whether all that an experiment reads is what the run here began with, before it is resumed.

        Raises
        ------
        DataError
            If a file or folder has changed or is gone; names it.
        """
        recorded = recorded_inputs(self.path) or {}
        try:
            inputs = experiment.inputs
        except DataError as error:
            raise DataError(f"{error}; if it was moved, write its place into {self.path / EXPERIMENT}") from None
        for key, now in inputs.items():
            if key in recorded:
                refuse_changes(key, now, recorded[key], self.path)

    def open(self, experiment: Experiment, *, simulated: bool = True) -> None:
        """Make the directory ready for a fresh run: remove what an older one left, write what is known at the start.

        Raises
        ------
        RunDirectoryError
            If it cannot be written.
        """
        try:
            (self.path / STARTING).touch()
            self._clear()
        except OSError as error:
            raise RunDirectoryError(f"cannot write to {self.path}: {error.strerror}; choose another --out") from error
        try:
            self._write_setting(experiment, simulated=simulated)
        except BaseException:
            # What is there is no run yet, and would stand in the way of the next one.
            with contextlib.suppress(OSError):
                self._clear()
                (self.path / STARTING).unlink()
            raise

    def reopen(self, experiment: Experiment, *, simulated: bool = True) -> None:
        """Make the directory that of an unfinished run again, with the experiment's limits and all that it began with.

        Its tables stay, as rows of theirs may be nowhere else.

        Raises
        ------
        RunDirectoryError
            If it cannot be written.
        """
        try:
            for name in (SUMMARY, MODEL, REPORT):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"cannot write to {self.path}: {error.strerror}") from error
        self._write_setting(experiment, simulated=simulated)

    def _write_setting(self, experiment: Experiment, *, simulated: bool) -> None:
        seeds = experiment.config.seeds
        write_partition(self.path, experiment.data, seeds.data)
        if simulated:
            write_devices(self.path, experiment.nominal_seconds, seeds.devices)
        write_inputs(self.path, experiment.inputs)
        # Last: a directory with this file is a run that can be resumed.
        with replacing(self.path / EXPERIMENT) as temporary:
            temporary.write_text(to_toml(experiment.tables), encoding="utf-8")
        (self.path / STARTING).unlink(missing_ok=True)

    def _clear(self) -> None:
        for name in (name for file in _FILES for name in (file, _temporary(file))):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / name for name in _FOLDERS):
            if folder.is_symlink() or folder.is_file():
                folder.unlink()
            elif folder.exists():
                shutil.rmtree(folder)
