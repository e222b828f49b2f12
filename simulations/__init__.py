"""The world: devices, virtual time, workers, experiments.

``from simulations import Experiment, run`` is the way in from Python. The two are imported when they are asked for: the
in-process simulation below them needs only torch and NumPy, and they need the libraries of records and configuration.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.experiment import Experiment
    from simulations.runner import RunResult, run

__all__ = ["Experiment", "RunResult", "run"]


def __getattr__(name: str) -> Any:
    if name == "Experiment":
        from simulations.experiment import Experiment

        return Experiment
    if name in ("run", "RunResult"):
        from simulations import baselines, runner

        # The runner alone trains no single-task models: `baselines` does, by running them.
        run = functools.partial(runner.run, single_task=baselines.single_task_values)
        return functools.update_wrapper(run, runner.run) if name == "run" else runner.RunResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
