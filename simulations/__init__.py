"""The world: devices, virtual time, workers, experiments.

``from simulations import Experiment, run`` is the way in from Python. The two are imported when they are asked for: the
in-process simulation below them needs only torch and NumPy, and they need the libraries of records and configuration.
"""

from __future__ import annotations

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
        from simulations import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
