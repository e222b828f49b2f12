"""The single-task baselines of a study: each is trained once for all experiments that share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedmtl.checkpoint import digest
from fedmtl.errors import ConfigError
from simulations.baselines import FOLDER, Baseline, baselines, is_there, read_value, train
from simulations.experiment import Experiment
from simulations.studies.study import Cell, Progress, Study, merged
from simulations.studies.tuning import best_value
from simulations.workers.pool import ray_map


class StudyBaselines:
    """What the experiments of a study are compared with.

    The baselines of an experiment have its strategy, data and seed, and equal balancing. Where the study has a section
    ``[tune]``, the setting is chosen for each baseline as it is for the experiments: from trials with the seeds of that
    section, on the clients' held-out examples. So labels that differ in balancing alone are compared with the same
    baselines, whatever was chosen for them.

    Parameters
    ----------
    study
        The study.
    out
        Its directory; baselines are in its folder ``baselines``.
    """

    def __init__(self, study: Study, out: Path) -> None:
        self.folder = out / FOLDER
        self._study = study
        self._trials = study.trials()
        self._names: dict[str, list[str]] = {}
        self._of: dict[str, list[Baseline]] = {}
        self._known: dict[str, Baseline] = {}
        self._chosen: dict[tuple[str, ...], Any] = {}

    def trials(self) -> list[Baseline]:
        """Those from which settings are chosen; none if the study chooses none.

        Raises
        ------
        ConfigError
            If an experiment can have no baselines.
        """
        return self._unique(self._plain(cell) for cells in self._trials.values() for cell in cells)

    def finals(self) -> list[Baseline]:
        """Those that experiments are compared with, as far as their settings could be chosen.

        Raises
        ------
        ConfigError
            If an experiment can have no baselines.
        """
        return self._unique(self.of(cell) or () for cell in self._study.cells())

    def count(self) -> tuple[int, int]:
        """How many there will be in all, and how many of them are there.

        Raises
        ------
        ConfigError
            If an experiment can have no baselines.
        """
        finals = set()
        for cell in self._study.cells():
            for index, baseline in enumerate(self._plain(cell)):
                # What is chosen is not known yet: whatever has the same trials will have the same choice.
                finals.add((baseline.key, *(b.key for every in self._trials_of(cell, index).values() for b in every)))
        wanted = [baseline.key for baseline in self.trials()]
        there = {path.name for path in self.folder.glob("[!.]*")}
        return len(finals) + len(wanted), len(there)

    def of(self, cell: Cell) -> list[Baseline] | None:
        """The baselines of an experiment, a task each; None if the trials of one all failed."""
        tuning, plain = self._study.tuning, self._plain(cell)
        if tuning is None:
            return plain
        found = []
        for index in range(len(plain)):
            try:
                value = self._choice(self._trials_of(cell, index))
            except ConfigError:
                return None
            found.append(
                self._plain(replace(cell, tables=merged(cell.tables, tuning.candidates(cell.labels).tables(value))))[
                    index
                ]
            )
        return found

    def values(self, cell: Cell) -> dict[str, float] | None:
        """The final metric of each task's baseline; None if one is not there.

        Raises
        ------
        RunDirectoryError
            If one is damaged.
        """
        every = self.of(cell)
        if every is None or not all((self.folder / baseline.key).exists() for baseline in every):
            return None
        return {baseline.task: read_value(baseline, self.folder) for baseline in every}

    def train_missing(
        self, wanted: Iterable[Baseline], *, workers: int, progress: Progress
    ) -> list[tuple[Cell, Exception]]:
        """Train baselines that are not there, in parallel on Ray; those that failed, with the fault.

        Raises
        ------
        RunDirectoryError
            If one is there, but damaged.
        """
        work = [(b.task, b.tables, str(self.folder)) for b in wanted if not is_there(b, self.folder)]
        failed: list[tuple[Cell, Exception]] = []
        if not work:
            return failed
        for (task, tables, _), _, fault in ray_map(train_one, work, workers=workers):
            cell = _as_cell(task, tables)
            if fault is not None:
                failed.append((cell, fault))
            progress(cell, fault)
        return failed

    def _trials_of(self, cell: Cell, index: int) -> dict[Any, list[Baseline]]:
        """For each value of the tuned setting the trials of one baseline of an experiment, one for each seed."""
        tuning = self._study.tuning
        if tuning is None:
            return {}
        place, values = tuning.place(cell.labels), tuning.candidates(cell.labels).values
        return {value: [self._plain(trial)[index] for trial in self._trials[place, value]] for value in values}

    def _choice(self, trials: Mapping[Any, list[Baseline]]) -> Any:
        """The best value of the tuned setting for one baseline."""
        name = tuple(baseline.key for every in trials.values() for baseline in every)
        if name not in self._chosen:
            paths = {value: [self.folder / baseline.key for baseline in every] for value, every in trials.items()}
            ended = {value: found if all(path.exists() for path in found) else [] for value, found in paths.items()}
            self._chosen[name] = best_value(ended)
        return self._chosen[name]

    def _plain(self, cell: Cell) -> list[Baseline]:
        """The baselines with the settings of the experiment itself."""
        key = digest(cell.tables)
        if key not in self._of:
            experiment = Experiment.load(tables=cell.tables)
            found = baselines(experiment, self._task_names(experiment))
            self._of[key] = [self._known.setdefault(digest(baseline.tables), baseline) for baseline in found]
        return self._of[key]

    def _task_names(self, experiment: Experiment) -> list[str]:
        """The tasks' names, which do not depend on the seed; building data to learn them is slow."""
        key = digest({section: experiment.tables[section] for section in ("data", "tasks")})
        if key not in self._names:
            self._names[key] = [task.name for task in experiment.data.tasks]
        return self._names[key]

    @staticmethod
    def _unique(lists: Iterable[Iterable[Baseline]]) -> list[Baseline]:
        return list({baseline.key: baseline for every in lists for baseline in every}.values())


def train_one(work: tuple[str, Mapping[str, Any], str]) -> None:
    """Train one baseline: its task, its configuration, and the folder that keeps it."""
    torch.set_num_threads(1)
    task, tables, folder = work
    if not train(Baseline(task, tables), Path(folder)):
        raise RuntimeError("interrupted")


def _as_cell(task: str, tables: Mapping[str, Any]) -> Cell:
    """A baseline under a name, for reports of progress."""
    labels = {"baseline": f"{task} alone", "strategy": tables["strategy"]["name"], "data": tables["data"]["partition"]}
    return Cell(labels, tables["seed"], tables)
