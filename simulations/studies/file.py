"""What a study's file may say: every key, and every experiment, is checked before anything runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedmtl.config import ExperimentConfig, read_toml
from fedmtl.config_errors import did_you_mean
from fedmtl.errors import ConfigError
from simulations.experiment import Experiment
from simulations.studies.columns import COMPARISONS, Outcome
from simulations.studies.shipped import shipped_studies
from simulations.studies.study import Cell, Study
from simulations.studies.tuning import Tuning

_KEYS = ("name", "seeds", "base", "axes", "targets", "highlight", "tune", "baselines")


def study_file(named: Path) -> Path:
    """The file that is named by its path, or a study that ships with FedMTL by its name, such as ``quick``.

    Raises
    ------
    ConfigError
        If it is neither; names the nearest study, and all that there are.
    """
    shipped = shipped_studies()
    if named.is_file() or named.suffix or named.parent != Path():
        return named
    if str(named) not in shipped:
        hint = f"{did_you_mean(str(named), shipped)}; those that ship with FedMTL: {', '.join(shipped)}"
        raise ConfigError(f"there is no file {named}, and no study of that name{hint}")
    return shipped[str(named)]


def load_study(path: Path) -> Study:
    """The study of a file.

    Raises
    ------
    ConfigError
        If the file or one of its experiments is wrong; names the file and the place.
    """
    study = _read(path)
    _check(study, path)
    return study


def _read(path: Path) -> Study:
    """The study as it is written; its experiments are not checked yet."""
    tables = read_toml(path)
    if unknown := set(tables) - set(_KEYS):
        if "axes" not in tables and unknown <= set(ExperimentConfig.model_fields):
            raise ConfigError(f"{path} is an experiment, not a study: run it with fedmtl run {path}")
        raise ConfigError(f"{path}: {min(unknown)} is not a key; known: {', '.join(_KEYS)}")
    seeds, axes = _seeds(path, tables.get("seeds", 5)), _axes(path, tables.get("axes", {}))
    base = tables.get("base", {})
    if not isinstance(base, dict):
        raise ConfigError(f"{path}: base = {base!r}: is a table of an experiment's keys, so write [base.SECTION]")
    return Study(
        name=_name(path, tables),
        seeds=tuple(seeds),
        base=base,
        axes=axes,
        targets=_targets(path, tables.get("targets", {})),
        tuning=Tuning.parse(tables["tune"], axes, seeds, str(path)) if "tune" in tables else None,
        highlight=_highlight(path, tables, axes),
        baselines=_baselines(path, tables),
    )


def _check(study: Study, path: Path) -> None:
    """See whether every experiment can be one, and has a directory of its own."""
    cells = [*itertools.chain.from_iterable(study.trials().values()), *study.cells()]
    of_name: dict[str, Cell] = {}
    for cell in cells:
        other = of_name.setdefault(cell.name, cell)
        if other is not cell:
            raise ConfigError(
                f"{path}: the experiments {_place(other)} and {_place(cell)} would share a directory, {cell.name}; "
                "call a label otherwise"
            )
    first = {study.seeds[0], *(study.tuning.seeds[:1] if study.tuning is not None else ())}
    for cell in cells:
        if cell.seed in first:
            try:
                if Experiment.load(tables=cell.tables).config.records.baselines:
                    raise ConfigError("records.baselines is for single runs: write baselines = true at the top")
            except ConfigError as error:
                raise ConfigError(f"{path}, {_place(cell)}: {error}") from None


def _place(cell: Cell) -> str:
    return ", ".join(cell.labels.values())


def _name(path: Path, tables: Mapping[str, Any]) -> str:
    """The study's name, which is that of a directory, too."""
    name = tables.get("name", path.stem)
    if not isinstance(name, str) or name in ("", ".", "..") or name != Path(name).name or "\0" in name:
        raise ConfigError(f"{path}: name = {name!r}: write a text that can name a directory")
    return name


def _seeds(path: Path, seeds: Any) -> Sequence[int]:
    if type(seeds) is int and seeds > 0:
        return list(range(seeds))
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise ConfigError(f"{path}: seeds = {seeds!r}: write a positive number of seeds, or a list of seeds")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds = {seeds!r}: one is there twice, and would count as two runs")
    return seeds


def _axes(path: Path, axes: Any) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """The axes: a table of labels each, and of each label a table of an experiment's keys."""
    how = "[axes.AXIS.LABEL.SECTION], such as [axes.strategy.FedQS.strategy] and name = ... below"
    if (
        not isinstance(axes, dict)
        or not axes
        or not all(isinstance(labels, dict) and labels for labels in axes.values())
    ):
        raise ConfigError(f"{path}: a study needs at least one axis with labels: {how}")
    for axis, labels in axes.items():
        if axis in ("seed", *(field.name for field in fields(Outcome)), *COMPARISONS):
            raise ConfigError(f"{path}: axes.{axis}: the results have a column of that name; call the axis otherwise")
        for label, table in labels.items():
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: axes.{axis}.{label} = {table!r}: is a table: {how}")
    return axes


def _targets(path: Path, targets: Any) -> Mapping[str, float]:
    """The values to reach, by task; whether there are such tasks shows when data are built."""
    if not isinstance(targets, dict):
        raise ConfigError(f"{path}: targets = {targets!r}: write [targets] and TASK = VALUE below")
    for task, value in targets.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ConfigError(f"{path}: targets.{task} = {value!r}: write a number, a value of the task's metric")
    return targets


def _baselines(path: Path, tables: Mapping[str, Any]) -> bool:
    """Whether single-task models are trained."""
    asked = tables.get("baselines", False)
    if not isinstance(asked, bool):
        raise ConfigError(f"{path}: baselines = {asked!r}: write true or false")
    return asked


def _highlight(path: Path, tables: Mapping[str, Any], axes: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels that the pictures of a study show for certain."""
    compared, labels = next(iter(axes.items()))
    chosen = tables.get("highlight", [])
    if not isinstance(chosen, list) or not all(label in labels for label in chosen):
        raise ConfigError(f"{path}: highlight = {chosen!r}: write a list of labels of the axis {compared!r}")
    return tuple(chosen)
