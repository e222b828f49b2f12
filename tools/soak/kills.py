"""Runs that are killed at random moments, their start and their end included, and gone on with: to the same bits."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
from torch import nn

from fedmtl.config import to_toml
from fedmtl.errors import RunDirectoryError
from fedmtl.models import MODELS
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.tasks import Task
from simulations import Experiment, run
from simulations.directory import EXPERIMENT
from tools.soak.pieces import Fault, Piece

PART = "kills"

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "fedqs": {"buffer_size": 3},
    "fedavg": {"clients_per_round": 3},
    "scaffold": {"clients_per_round": 3},
    "fedadam": {"clients_per_round": 3},
    "oort": {"clients_per_round": 3},
    "fedbuff": {"buffer_size": 3},
    "fedcompass": {"q_max": 6},
    "safa": {"buffer_size": 3},
    "ca2fl": {"buffer_size": 3},
    "fedat": {"tiers": 2},
    "fedac": {"buffer_size": 3},
    "fedqueue": {"round_seconds": 3.0, "max_steps": 10},
}
"""Twelve strategies, with what makes their versions small."""

DROPOUT = "soak-dropout"
_MODELS: Sequence[Mapping[str, Any]] = (
    {"name": "mlp", "hidden": [8], "norm": "batch"},
    {"name": DROPOUT},
    {"name": "mlp", "hidden": [8]},
)
_KILLS = 3
"""How often a run is cut at most before it is left to its end."""

_CLOCKS = ("wall_seconds", "ntk_seconds")


class Dropping(nn.Sequential):
    """A backbone that draws: dropout, and rectifiers of random slopes."""

    def __init__(self, inputs: int) -> None:
        layers = (nn.Flatten(), nn.Linear(inputs, 12), nn.RReLU(), nn.Dropout(0.3), nn.Linear(12, 8), nn.ReLU())
        super().__init__(*layers)


def dropping(input_shape: Sequence[int], tasks: Sequence[Task]) -> MultiTaskModel:
    """A model of one's own, with modules that draw from torch's default generator."""
    inputs = 1
    for size in input_shape:
        inputs *= size
    return MultiTaskModel(Dropping(inputs), 8, tasks)


def kills(count: int, first: int = 0) -> list[Piece]:
    """So many runs that are killed; number n is that of the seed n."""
    MODELS[DROPOUT] = dropping
    pieces = []
    for number in range(first, first + count):
        tables = killed_tables(number)
        pieces.append(
            Piece(PART, number, to_toml(tables), lambda folder, n=number, tables=tables: attempt(tables, folder, n))
        )
    return pieces


def killed_tables(number: int) -> dict[str, Any]:
    """The configuration of a run that is killed: every strategy with every model in turn."""
    names = list(STRATEGIES)
    name, model = names[number % len(names)], _MODELS[number // len(names) % len(_MODELS)]
    return {
        "seed": number,
        "data": {"clients": 8, "alpha": 1.0},
        "model": dict(model),
        "strategy": {"name": name, **STRATEGIES[name]},
        "balancing": {"name": "equal"},
        "training": {"batch_size": 20},
        "stop": {"versions": 8, "updates": 200},
        "records": {"evaluate_every": 2, "checkpoint_every": 2},
    }


def attempt(tables: Mapping[str, Any], folder: Path, number: int) -> tuple[str, str, dict[str, Any]]:
    """Run to the end in one go, and again with kills; both must leave the same.

    Raises
    ------
    Fault
        If they differ, or the run cannot go on.
    """
    draw, whole, cut = Random(f"kill/{number}"), folder / "whole", folder / "cut"
    _start(tables, whole)  # once for what is loaded only once
    shutil.rmtree(whole)
    started = time.monotonic()
    _start(tables, whole)
    length = time.monotonic() - started
    killed = 0
    for _ in range(_KILLS):
        # Two in ten moments are in the first and the last hundredths, where directories are opened and closed.
        share = draw.choice([draw.uniform(0, 0.05), *(draw.uniform(0, 1),) * 3, draw.uniform(0.9, 1.05)])
        if _cut_short(tables, cut, share * length, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])):
            killed += 1
        else:
            break
    if not (cut / "summary.json").exists():
        _go_on(tables, cut)
    if different := differences(whole, cut):
        raise Fault("bits", f"after {killed} kills these differ: {', '.join(different)}")
    return "success", f"killed {killed} times", {"killed": killed}


def _start(tables: Mapping[str, Any], out: Path) -> None:
    run(Experiment.load(tables=tables), out)


def _go_on(tables: Mapping[str, Any], out: Path) -> None:
    """What a user does: go on with what is there, or start anew where there is nothing to go on with."""
    if not out.exists():
        return _start(tables, out)
    try:
        experiment = Experiment.load(out / EXPERIMENT) if (out / EXPERIMENT).exists() else None
        if experiment is not None:
            run(experiment, out, resume=True)
            return None
    except RunDirectoryError as error:
        if "finished" not in str(error):
            raise
        return None
    run(Experiment.load(tables=tables), out, overwrite=True)
    return None


def _cut_short(tables: Mapping[str, Any], out: Path, seconds: float, number: signal.Signals) -> bool:
    """Start the run, or go on with it, in a process that gets a signal after some time; whether that came in time."""
    process = multiprocessing.get_context("fork").Process(target=_go_on, args=(tables, out))
    process.start()
    assert process.pid is not None
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, number)
        process.join(60)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        raise Fault("stuck", f"{number.name} did not end the run within 60 s")
    if process.exitcode not in (0, -signal.SIGKILL, -signal.SIGTERM):
        raise Fault("traceback", f"the run that was to be cut ended with code {process.exitcode}")
    return not (out / "summary.json").exists()


def differences(one: Path, other: Path) -> list[str]:
    """The files that two runs left and that differ, clocks aside; pictures aside, too, which hold no result."""
    names = {path.name for path in (*one.iterdir(), *other.iterdir()) if path.suffix in (".parquet", ".safetensors")}
    found = [name for name in sorted(names) if _content(one / name) != _content(other / name)]
    first, second = (json.loads((path / "summary.json").read_text(encoding="utf-8")) for path in (one, other))
    return found + [key for key in first if key not in _CLOCKS and first[key] != second.get(key)]


def _content(path: Path) -> str:
    if not path.exists():
        return "is not there"
    if path.suffix == ".parquet":
        return repr(pq.read_table(path).to_pylist())
    return hashlib.sha256(path.read_bytes()).hexdigest()
