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
    if name == "RunResult":
        from simulations.runner import RunResult

        return RunResult
    if name == "run":
        from simulations.baselines import single_task_values
        from simulations.runner import run

        # The runner alone trains no single-task models; what does so runs them with it.
        return functools.update_wrapper(functools.partial(run, single_task=single_task_values), run)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
