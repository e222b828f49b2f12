"""Studies: experiments that differ along named axes, over several seeds, in parallel, and what they say together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedmtl.checkpoint import digest
from fedmtl.config import to_toml
from fedmtl.errors import ConfigError, RunDirectoryError
from fedmtl.files import replacing
from fedmtl.records.summary import SUMMARY
from simulations.experiment import Experiment
from simulations.studies.file import read_study
from simulations.studies.tuning import Choices, Tuning, best_value

STUDY = "study.toml"


@dataclass(frozen=True)
class Cell:
    """One experiment of a study.

    Attributes
    ----------
    labels
        Its place on each axis: axis -> label.
    seed
        Its seed.
    tables
        Its configuration.
    """

    labels: Mapping[str, str]
    seed: int
    tables: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A name for its directory."""
        text = "--".join([*self.labels.values(), f"seed{self.seed}"])
        return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)


@dataclass(frozen=True)
class Study:
    """Axes, seeds and a base: every combination is one experiment.

    ::

        name = "strategies"
        seeds = 5                                  # 0..4, or a list
        [base.stop]                                # any keys of an experiment
        versions = 200
        [axes.strategy.FedQS-SGD.strategy]         # axes.<axis>.<label>.<section>
        name = "fedqs"
        [axes.speed."1:50".devices]
        ratio = 50
        [targets]                                  # for times to target, by task
        digit = 0.8

    ``highlight = ["FedQS-SGD"]`` at the top names labels of the first axis whose curves are drawn beside the best ones;
    it changes no experiment, so it may change in a study that has begun.

    ``baselines = true`` has single-task models trained, too, and experiments compared with them
    (:mod:`simulations.studies.baselines`). It changes no experiment, either.

    The first axis is what is compared; tables and plots have a part for each combination of the others. A section
    ``[tune]`` (:class:`simulations.studies.tuning.Tuning`) has one setting chosen for each label first.
    """

    name: str
    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    targets: Mapping[str, float]
    tuning: Tuning | None = None
    highlight: tuple[str, ...] = ()
    baselines: bool = False

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read a study.

        Raises
        ------
        ConfigError
            If the file or one of its experiments is wrong; names the file and the place.
        """
        study = cls(**read_study(path))
        study._check(path)
        return study

    def _check(self, path: Path) -> None:
        """See whether every experiment can be one, and has a directory of its own."""
        cells = [*itertools.chain.from_iterable(self.trials().values()), *self.cells()]
        of_name: dict[str, Cell] = {}
        for cell in cells:
            other = of_name.setdefault(cell.name, cell)
            if other is not cell:
                raise ConfigError(
                    f"{path}: the experiments {_place(other)} and {_place(cell)} would share a directory, {cell.name}; "
                    "call a label otherwise"
                )
        first = {self.seeds[0], *(self.tuning.seeds[:1] if self.tuning is not None else ())}
        for cell in cells:
            if cell.seed in first:
                try:
                    if Experiment.load(tables=cell.tables).config.records.baselines:
                        raise ConfigError("records.baselines is for single runs: write baselines = true at the top")
                except ConfigError as error:
                    raise ConfigError(f"{path}, {_place(cell)}: {error}") from None

    def cells(self, choices: Choices | None = None) -> list[Cell]:
        """Every experiment, the seed outermost; with what was chosen, if there is a section ``[tune]``."""
        return [self._cell(labels, seed, choices) for seed in self.seeds for labels in self._combinations()]

    def _combinations(self) -> list[dict[str, str]]:
        names = list(self.axes)
        products = itertools.product(*(self.axes[name] for name in names))
        return [dict(zip(names, labels, strict=True)) for labels in products]

    def _cell(self, labels: Mapping[str, str], seed: int, choices: Choices | None = None) -> Cell:
        tables: dict[str, Any] = merged({}, self.base)
        for name, label in labels.items():
            tables = merged(tables, self.axes[name][label])
        if self.tuning is not None and choices is not None:
            value = choices[self.tuning.place(labels)]
            tables = merged(tables, self.tuning.candidates(labels).tables(value))
        return Cell(labels, seed, merged(tables, {"seed": seed}))

    def trials(self) -> dict[tuple[tuple[str, ...], Any], list[Cell]]:
        """The experiments from which settings are chosen: (labels on the axes `per`, value) -> one for each seed."""
        tuning, found = self.tuning, {}
        if tuning is not None:
            places = [c for c in self._combinations() if all(c[axis] == label for axis, label in tuning.at.items())]
            for labels in places:
                candidates = tuning.candidates(labels)
                for value in candidates.values:
                    cells = [self._cell(labels, seed, {tuning.place(labels): value}) for seed in tuning.seeds]
                    named = [replace(cell, labels={**labels, candidates.key: str(value)}) for cell in cells]
                    found[tuning.place(labels), value] = named
        return found

    def toml(self) -> str:
        """The study as a file."""
        tables = {"name": self.name, "seeds": list(self.seeds), "base": self.base, "axes": self.axes}
        if self.tuning is not None:
            tables["tune"] = self.tuning.toml()
        return to_toml(tables | ({"targets": self.targets} if self.targets else {}))


def _place(cell: Cell) -> str:
    return ", ".join(cell.labels.values())


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, section by section; a component that is named anew drops the older one's options.

    Options below no name stay: they may be meant for any component, and one that does not know them refuses them.
    """
    result = dict(under)
    for key, value in over.items():
        older = result.get(key)
        if isinstance(value, Mapping) and isinstance(older, Mapping):
            renamed = any(k in value and k in older and value[k] != older[k] for k in ("name", "kind"))
            result[key] = dict(value) if renamed else merged(older, value)
        else:
            result[key] = value
    return result


Progress = Callable[[Cell, Exception | None], None]
"""Told of each experiment when it is done, and of the fault if it failed."""


def run_study(study: Study, out: Path, *, workers: int, progress: Progress) -> list[tuple[Cell, Exception]]:
    """Run the study's experiments that `out` does not hold yet, in parallel on Ray; those that failed, with the fault.

    Raises
    ------
    ConfigError
        If a target is of a task that no experiment has.
    RunDirectoryError
        If `out` holds another study.
    """
    from simulations.studies.baselines import StudyBaselines
    from simulations.workers.pool import ray_map

    _check_targets(study)
    path = out / STUDY
    if path.exists() and path.read_text(encoding="utf-8") != study.toml():
        raise RunDirectoryError(f"{out} holds another study, or an older version of this one; choose another --out")
    with replacing(path) as temporary:
        temporary.write_text(study.toml(), encoding="utf-8")

    def run_missing(cells: Sequence[Cell]) -> list[tuple[Cell, Exception]]:
        missing = [cell for cell in cells if not (run_directory(out, cell) / SUMMARY).exists()]
        failed: list[tuple[Cell, Exception]] = []
        if not missing:
            return failed
        for (cell, _), _, fault in ray_map(run_cell, [(cell, str(out)) for cell in missing], workers=workers):
            if fault is not None:
                failed.append((cell, fault))
            progress(cell, fault)
        return failed

    alone = StudyBaselines(study, out) if study.baselines else None
    trials = [] if alone is None else alone.trials()  # refuses what can have none before anything runs
    failed = run_missing([*itertools.chain.from_iterable(study.trials().values())])
    if alone is not None:
        failed += alone.train_missing(trials, workers=workers, progress=progress)
        failed += alone.train_missing(alone.finals(), workers=workers, progress=progress)
    return failed + run_missing(study.cells(chosen(study, out)))


def _check_targets(study: Study) -> None:
    """See whether every target is of some experiment's task; no more data are built than are needed for that."""
    missing, known, seen = set(study.targets), dict[str, None](), set()
    for cell in (cell for cell in study.cells() if cell.seed == study.seeds[0]):
        if not missing:
            return
        experiment = Experiment.load(tables=cell.tables)
        if (key := digest({section: experiment.tables[section] for section in ("data", "tasks")})) not in seen:
            seen.add(key)
            known |= dict.fromkeys(task.name for task in experiment.data.tasks)
            missing -= set(known)
    if missing:
        raise ConfigError(f"targets.{min(missing)} is not a task of this study; known: {', '.join(known)}")


def chosen(study: Study, out: Path) -> Choices | None:
    """What the trials in `out` say about the setting of the section ``[tune]``; None if the study has none.

    Raises
    ------
    ConfigError
        If there is a label for which no trial ended.
    """
    if study.tuning is None:
        return None
    by_place: dict[tuple[str, ...], dict[Any, list[Path]]] = {}
    for (place, value), cells in study.trials().items():
        ended = [path for cell in cells if ((path := run_directory(out, cell)) / SUMMARY).exists()]
        by_place.setdefault(place, {})[value] = ended if len(ended) == len(cells) else []
    choices = {}
    for place, directories in by_place.items():
        try:
            choices[place] = best_value(directories)
        except ConfigError as error:
            raise ConfigError(f"tune, {', '.join(place)}: {error}") from None
    return choices


def run_directory(out: Path, cell: Cell) -> Path:
    """Where an experiment of a study keeps its records."""
    return out / "runs" / cell.name


def run_cell(work: tuple[Cell, str]) -> None:
    """Run one experiment of a study; a part of it that an interruption left is done again."""
    import torch

    from simulations.runner import run

    torch.set_num_threads(1)
    cell, out = work
    run(Experiment.load(tables=cell.tables), run_directory(Path(out), cell), overwrite=True, pictures=False)
