"""Studies: experiments that differ along named axes, over several seeds, in parallel, and what they say together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmtl.config import read_toml, to_toml
from fedmtl.errors import ConfigError, RunDirectoryError
from fedmtl.files import replacing
from fedmtl.records.summary import SUMMARY
from simulations.experiment import Experiment

_KEYS = ("name", "seeds", "base", "axes", "targets", "highlight")

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

    The first axis is what is compared; tables and plots have a part for each combination of the others.
    """

    name: str
    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    targets: Mapping[str, float]
    highlight: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read a study.

        Raises
        ------
        ConfigError
            If the file or one of its experiments is wrong; names the file and the place.
        """
        tables = read_toml(path)
        if unknown := set(tables) - set(_KEYS):
            raise ConfigError(f"{path}: {min(unknown)} is not a key; known: {', '.join(_KEYS)}")
        seeds = tables.get("seeds", 5)
        if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
            seeds = list(range(seeds))
        if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
            raise ConfigError(f"{path}: seeds = {seeds!r}: write a positive number of seeds, or a list of seeds")
        axes = tables.get("axes", {})
        if not axes or not all(isinstance(axis, dict) and axis for axis in axes.values()):
            raise ConfigError(f"{path}: a study needs at least one axis: [axes.strategy.LABEL.strategy] name = ...")
        name, base, targets = str(tables.get("name", path.stem)), tables.get("base", {}), tables.get("targets", {})
        study = cls(name, tuple(seeds), base, axes, targets, _highlight(path, tables, axes))
        for cell in study.cells():
            if cell.seed == study.seeds[0]:
                try:
                    Experiment.load(tables=cell.tables)
                except ConfigError as error:
                    raise ConfigError(f"{path}, {', '.join(cell.labels.values())}: {error}") from None
        return study

    def cells(self) -> list[Cell]:
        """Every experiment, the compared axis varying fastest but for the seed, which is outermost."""
        names = list(self.axes)
        combinations = list(itertools.product(*(self.axes[name] for name in names)))
        return [
            Cell(dict(zip(names, labels, strict=True)), seed, self._tables(names, labels, seed))
            for seed in self.seeds
            for labels in combinations
        ]

    def _tables(self, names: list[str], labels: tuple[str, ...], seed: int) -> dict[str, Any]:
        tables: dict[str, Any] = merged({}, self.base)
        for name, label in zip(names, labels, strict=True):
            tables = merged(tables, self.axes[name][label])
        return merged(tables, {"seed": seed})

    def toml(self) -> str:
        """The study as a file."""
        tables = {"name": self.name, "seeds": list(self.seeds), "base": self.base, "axes": self.axes}
        return to_toml(tables | ({"targets": self.targets} if self.targets else {}))


def _highlight(path: Path, tables: Mapping[str, Any], axes: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels that the pictures of a study show for certain."""
    compared, labels = next(iter(axes.items()))
    chosen = tables.get("highlight", [])
    if not isinstance(chosen, list) or not all(label in labels for label in chosen):
        raise ConfigError(f"{path}: highlight = {chosen!r}: write a list of labels of the axis {compared!r}")
    return tuple(chosen)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, section by section; a component that is named anew drops the older one's options."""
    result = dict(under)
    for key, value in over.items():
        older = result.get(key)
        if isinstance(value, Mapping) and isinstance(older, Mapping):
            renamed = any(k in value and value[k] != older.get(k) for k in ("name", "kind"))
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
    RunDirectoryError
        If `out` holds another study.
    """
    from simulations.workers.pool import ray_map

    path = out / STUDY
    if path.exists() and path.read_text(encoding="utf-8") != study.toml():
        raise RunDirectoryError(f"{out} holds another study, or an older version of this one; choose another --out")
    with replacing(path) as temporary:
        temporary.write_text(study.toml(), encoding="utf-8")
    missing = [cell for cell in study.cells() if not (run_directory(out, cell) / SUMMARY).exists()]
    failed = []
    for (cell, _), _, fault in ray_map(run_cell, [(cell, str(out)) for cell in missing], workers=workers):
        if fault is not None:
            failed.append((cell, fault))
        progress(cell, fault)
    return failed


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
