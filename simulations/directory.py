"""The directory of a run: what may be there before, and what is there afterwards."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from fedmtl.checkpoint import check_format
from fedmtl.config import to_toml
from fedmtl.errors import DataError, RunDirectoryError
from fedmtl.files import replacing
from fedmtl.inputs import INPUTS, recorded_inputs, refuse_changes, write_inputs
from fedmtl.records.setting import write_devices, write_partition
from fedmtl.records.summary import SUMMARY
from simulations.experiment import Experiment

EXPERIMENT = "experiment.toml"
MODEL = "model.safetensors"
_FOLDERS = ("checkpoint", "records", "plots", "ntk")
_FILES = (EXPERIMENT, "*.parquet", ".*.tmp", "report.html", MODEL, SUMMARY, INPUTS)


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

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """See whether a run may start, or go on, here; changes nothing.

        Raises
        ------
        RunDirectoryError
            If the directory holds a run and neither `resume` nor `overwrite` is set, or there is nothing to resume, or
            it holds something that is no run.
        CheckpointError
            If what is to be resumed is damaged, or was begun by a FedMTL whose state this one cannot read.
        """
        path, holds_run = self.path, (self.path / EXPERIMENT).exists()
        if path.exists() and not path.is_dir():
            raise RunDirectoryError(f"{path} is a file, not a directory; choose another --out")
        if resume:
            if not holds_run:
                raise RunDirectoryError(f"{path} holds no run to resume ({EXPERIMENT} is not there)")
            if (path / SUMMARY).exists():
                raise RunDirectoryError(f"the run in {path} is finished; there is nothing to resume")
            check_format(self.checkpoint)
        elif holds_run and not overwrite:
            state = "finished" if (path / SUMMARY).exists() else "unfinished"
            raise RunDirectoryError(
                f"{path} already holds a run ({state}); choose another --out, or use --overwrite"
                + ("" if state == "finished" else f" or --resume {path}")
            )
        elif path.is_dir() and not holds_run and any(path.iterdir()):
            raise RunDirectoryError(f"{path} is not empty and holds no run; choose another --out")

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
            self._clear()
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"cannot write to {self.path}: {error.strerror}; choose another --out") from error
        try:
            write_partition(self.path, experiment.data)
            if simulated:
                write_devices(self.path, experiment.nominal_seconds)
            write_inputs(self.path, experiment.inputs)
            # Last: a directory with this file is a run that can be resumed.
            with replacing(self.path / EXPERIMENT) as temporary:
                temporary.write_text(to_toml(experiment.tables), encoding="utf-8")
        except BaseException:
            # What is there is no run yet, and would stand in the way of the next one.
            with contextlib.suppress(OSError):
                self._clear()
            raise

    def _clear(self) -> None:
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for pattern in _FILES:
            for file in self.path.glob(pattern):
                file.unlink()
