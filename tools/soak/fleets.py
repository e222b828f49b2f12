"""Honest fleets: one seed of each cell of the recorded studies under the guard, which must turn none of them down."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from fedmtl.records import read_table
from simulations import Experiment, run
from simulations.studies.file import load_study
from simulations.studies.study import Cell, merged
from tools.soak.pieces import Fault, Piece

PART = "fleets"
STUDIES = ("strategies", "task-weights", "balancers", "fedqs-reference")
"""The recorded studies."""

GUARD = 50.0
"""What holds where clients are real."""


def fleets(count: int | None = None, *, stop: Mapping[str, Any] | None = None) -> list[Piece]:
    """One seed of each cell of the recorded studies, or so many of them that a seed draws.

    Parameters
    ----------
    count
        How many; all of them if not given.
    stop
        When each ends; default: as in its study.
    """
    cells = [(name, cell) for name in STUDIES for cell in _one_seed(name)]
    numbered = list(enumerate(cells))
    if count is not None:
        numbered = sorted(Random("fleets").sample(numbered, count))
    return [
        Piece(
            PART,
            number,
            f"{study}: {cell.name}",
            lambda folder, cell=cell: attempt(cell, folder, stop),
        )
        for number, (study, cell) in numbered
    ]


def _one_seed(name: str) -> list[Cell]:
    study = load_study(Path(str(files("simulations") / "studies" / f"{name}.toml")))
    return [cell for cell in study.cells() if cell.seed == study.seeds[0]]


def attempt(cell: Cell, folder: Path, stop: Mapping[str, Any] | None) -> tuple[str, str, dict[str, Any]]:
    """Run a cell under the guard; its largest ratios.

    Raises
    ------
    Fault
        If the guard turned an update down.
    """
    tables = merged(cell.tables, {"strategy": {"guard": GUARD}})
    if stop is not None:
        tables = {**tables, "stop": dict(stop)}
    result = run(Experiment.load(tables=tables), folder / "run", pictures=False)
    reasons = read_table(folder / "run", "updates")["rejected"].drop_null().to_pylist()
    if guarded := [reason for reason in reasons if "median" in reason]:
        raise Fault("guarded", f"{len(guarded)} honest updates were turned down: {guarded[0]}")
    ratios = result.summary["guard"]["largest_ratio"]
    heads = [ratio for kind, ratio in ratios.items() if kind.startswith("head")]
    return "success", result.ended, {"ratios": {"model": ratios.get("model", 0.0), "head": max(heads, default=0.0)}}
