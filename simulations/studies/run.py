"""Running a study: its experiments in parallel, and what its trials choose."""

from __future__ import annotations

import contextlib
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedmtl.checkpoint import digest
from fedmtl.config import StopSection, read_toml
from fedmtl.errors import CheckpointError, ConfigError, RunDirectoryError
from fedmtl.files import replacing
from fedmtl.records.summary import SUMMARY, read_summary, results_of
from fedmtl.results import RESULTS
from simulations.directory import EXPERIMENT
from simulations.experiment import Experiment
from simulations.lock import held
from simulations.runner import run
from simulations.studies.baselines import StudyBaselines
from simulations.studies.study import Cell, Progress, Study
from simulations.studies.tuning import Choices, best_value
from simulations.workers.pool import ray_map

STUDY = "study.toml"


def run_study(study: Study, out: Path, *, workers: int, progress: Progress) -> list[tuple[Cell, Exception]]:
    """Run the study's experiments that `out` does not hold yet, in parallel on Ray; those that failed, with the fault.

    Experiments that were made with other results (:data:`fedmtl.results.RESULTS`) are run anew.
    Where the sections ``stop`` alone have changed since it began, finished experiments go on to their new ends.

    Raises
    ------
    ConfigError
        If a target is of a task that no experiment has.
    RunDirectoryError
        If `out` holds another study, or another process works there.
    """
    with held(out):
        return _run_study(study, out, workers=workers, progress=progress)


def _run_study(study: Study, out: Path, *, workers: int, progress: Progress) -> list[tuple[Cell, Exception]]:
    _check_targets(study)
    path = out / STUDY
    if path.exists() and _without_stops(path.read_text(encoding="utf-8")) != _without_stops(study.toml()):
        raise RunDirectoryError(
            f"{out} holds another study, or an older version of this one that differs in more than its ends (stop); "
            "choose another --out"
        )
    with replacing(path) as temporary:
        temporary.write_text(study.toml(), encoding="utf-8")

    def run_missing(cells: Sequence[Cell]) -> list[tuple[Cell, Exception]]:
        missing = [cell for cell in cells if not is_done(out, cell)]
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
        ended = [run_directory(out, cell) for cell in cells if is_done(out, cell)]
        by_place.setdefault(place, {})[value] = ended if len(ended) == len(cells) else []
    choices = {}
    for place, directories in by_place.items():
        try:
            choices[place] = best_value(directories)
        except ConfigError as error:
            raise ConfigError(f"tune, {', '.join(place)}: {error}") from None
    return choices


def has_diverged(study: Study, out: Path, place: tuple[str, ...], value: Any) -> bool:
    """Whether a trial with a value diverged. If it was chosen all the same, one did with every value."""
    trials = study.trials()[place, value]
    return any(read_summary(run_directory(out, cell)).get("diverged") for cell in trials)


def run_directory(out: Path, cell: Cell) -> Path:
    """Where an experiment of a study keeps its records."""
    return out / "runs" / cell.name


def is_done(out: Path, cell: Cell) -> bool:
    """Whether a study's directory holds an experiment that came to the end it is to have, with our results."""
    directory = run_directory(out, cell)
    if not ((directory / SUMMARY).exists() and (directory / EXPERIMENT).exists()):
        return False
    return results_of(directory) == RESULTS and _stop(read_toml(directory / EXPERIMENT)) == _stop(cell.tables)


def with_other_results(study: Study, out: Path) -> int:
    """How many experiments of a study came to their end with other results than this version's."""
    cells = itertools.chain(study.cells(), *study.trials().values())
    return sum(results_of(run_directory(out, cell)) not in (None, RESULTS) for cell in cells)


def run_cell(work: tuple[Cell, str]) -> None:
    """Run one experiment of a study, or go on with what is there of it."""
    torch.set_num_threads(1)
    cell, out = work
    experiment, directory = Experiment.load(tables=cell.tables), run_directory(Path(out), cell)
    begun = (directory / EXPERIMENT).exists() and results_of(directory) in (None, RESULTS)
    if begun and not is_done(Path(out), cell):
        # What another version left, is damaged, or is to end earlier than it did, is done again.
        with contextlib.suppress(CheckpointError, ConfigError):
            run(experiment, directory, resume=True, pictures=False)
            return
    run(experiment, directory, overwrite=True, pictures=False)


def _stop(tables: Mapping[str, Any]) -> StopSection:
    return StopSection.model_validate(tables.get("stop", {}))


def _without_stops(text: str) -> dict[str, Any]:
    """A study as tables, without what says when its experiments end."""
    study = tomllib.loads(text)
    study.get("base", {}).pop("stop", None)
    for labels in study.get("axes", {}).values():
        for tables in labels.values():
            tables.pop("stop", None)
    return study
