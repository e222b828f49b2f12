"""What watches a run: its recorder, its evaluation, its kernels' log and its checkpoints."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedmtl.checkpoint import load_checkpoint, save_checkpoint
from fedmtl.evaluation import Evaluator, halves
from fedmtl.ntk.groups import client_groups
from fedmtl.ntk.measure import KernelProbe
from fedmtl.protocol import Event
from fedmtl.records import Recorder
from fedmtl.records.convergence import ConvergenceWatch
from fedmtl.records.divergence import Divergence
from fedmtl.records.single_task import SINGLE_TASK, against_single_task
from fedmtl.records.summary import summarise
from fedmtl.restoring import refuse_difference, restoring, within
from simulations.directory import RunDirectory
from simulations.experiment import Experiment
from simulations.observers import Evaluation, KernelLog, Recording
from strategies.core.guard import Guard
from strategies.core.loop import Loop, Observer

_log = logging.getLogger(__name__)


class Watch:
    """Everything that records a run.

    Parameters
    ----------
    experiment
        What is run.
    directory
        Where its tables and checkpoints are written.
    simulated
        Whether the clients are: real ones have no known speeds, and come and go.
    """

    def __init__(self, experiment: Experiment, directory: RunDirectory, *, simulated: bool) -> None:
        self._config = experiment.config
        every = self._config.records
        data = experiment.data
        self.recorder = Recorder(
            directory.path,
            data.tasks,
            kernels=every.ntk_every > 0,
            connections=not simulated,
            convergence=every.convergence,
        )
        seconds = experiment.nominal_seconds if simulated else None
        fast = halves(seconds, np.any(data.owners, axis=1)).get("fast")
        self._convergence = ConvergenceWatch(None if fast is None else fast.tolist()) if every.convergence else None
        seed = experiment.config.seed
        evaluator = Evaluator(experiment.new_model(), data, seconds, seed=seed, client_losses=every.convergence)
        self.evaluation = Evaluation(evaluator, self.recorder, every.evaluate_every)
        self._shift = experiment.data.shift
        self.kernels = _kernel_log(experiment, self.recorder, seconds)
        self.checkpointer = Checkpointer(directory.checkpoint, self.recorder, experiment, self.kernels)

    def observers(self, further: Sequence[Observer]) -> list[Observer]:
        """The loop's observers: updates are recorded first, and a checkpoint holds what all others did."""
        kernels = () if self.kernels is None else (self.kernels,)
        return [Recording(self.recorder, self._convergence), self.evaluation, *kernels, *further, self.checkpointer]

    def restore(self, loop: Loop) -> None:
        """Go back to the last checkpoint, with what was recorded until then (see :meth:`Checkpointer.restore`)."""
        self.checkpointer.restore(loop)
        self.evaluation.recall()

    def summary(self, loop: Loop, single_task: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What became of the run, also against single-task models if there are some."""
        config, target = self._config, self._config.stop.target
        summary = summarise(
            self.recorder,
            name=config.name,
            strategy=config.strategy.name,
            seed=config.seed,
            seeds=config.seeds._asdict(),
            ended=loop.ended,
            time=loop.fleet.now(),
            wall_seconds=self.checkpointer.wall_seconds,
            target=None if target is None else (target.task, target.value),
            refused=_refused(loop),
        )
        if (guard := loop.strategy.guard).factor:
            summary["guard"] = guard_summary(guard, [task.name for task in self.recorder.tasks])
        if (shift := self._shift) is not None:
            summary["shift"] = {"kind": shift.kind, "strength": shift.strength, "unit": shift.unit}
        if self.kernels is not None:
            summary["ntk_seconds"] = self.kernels.wall_seconds
        if single_task:
            summary[SINGLE_TASK] = against_single_task(summary, single_task)
        return summary


def _refused(loop: Loop) -> Divergence | None:
    """The server step that ended the run since it could not be taken, if one did."""
    return None if loop.diverged is None else Divergence(loop.diverged.version, None, str(loop.diverged))


def guard_summary(guard: Guard, tasks: Sequence[str]) -> dict[str, Any]:
    """What the guard saw, as JSON-compatible values.

    Its `factor`; how many updates it `rejected`; and of the accepted ones the largest ratio of a length and the
    running median of its kind: of the whole update (`model`), of each task's head (`heads`), and of each further vector
    (`vectors`). None where there were too few to take a median.
    """
    ratios = dict(guard.largest_ratio)
    return {
        "factor": guard.factor,
        "rejected": guard.rejected,
        "largest_ratio": {
            "model": ratios.pop("model", None),
            "heads": {name: ratios.pop(f"head {task}", None) for task, name in enumerate(tasks)},
            "vectors": ratios,
        },
    }


def _kernel_log(experiment: Experiment, recorder: Recorder, seconds: np.ndarray | None) -> KernelLog | None:
    """What measures the model's kernels during the run, if anything is to; `seconds` say how fast clients are."""
    every = experiment.config.records.ntk_every
    if not every:
        return None
    groups = client_groups(experiment.data, seconds)
    probe = KernelProbe(experiment.new_model(), experiment.data, experiment.config.seed, groups=groups)
    return KernelLog(probe, recorder, every)


class Checkpointer(Observer):
    """Saves the run's state every so many versions, and when asked.

    Attributes
    ----------
    wall_seconds
        Real seconds that the run has taken, those before an interruption included.
    """

    def __init__(
        self, directory: Path, recorder: Recorder, experiment: Experiment, kernels: KernelLog | None = None
    ) -> None:
        self._directory = directory
        self._recorder = recorder
        self._kernels = kernels
        self._digest = experiment.digest
        self._every = experiment.config.records.checkpoint_every
        self._saved = 0
        self._saved_now = False  # since the last event
        self._before = 0.0
        self._started = time.perf_counter()

    @property
    def wall_seconds(self) -> float:
        """Seconds of real time that the run has taken, those before a resume included."""
        return self._before + time.perf_counter() - self._started

    def after_event(self, loop: Loop, event: Event) -> None:
        """Save if a checkpoint is due."""
        version = loop.strategy.model.version
        self._saved_now = False
        if version >= self._saved + self._every:
            self._saved = version - version % self._every
            self.save(loop)

    def before_end(self, loop: Loop) -> None:
        """Save the state from which the run can go on if it is to end later."""
        if not self._saved_now:
            self.save(loop)

    def save(self, loop: Loop) -> None:
        """Save now, if the fleet has a state that can be saved."""
        with _collector_at_rest():
            state = loop.state_dict()
            if state["fleet"] is not None:
                whole = {"loop": state, "records": self._recorder.state_dict(), "wall_seconds": self.wall_seconds}
                if self._kernels is not None:
                    whole["ntk_seconds"] = self._kernels.wall_seconds
                save_checkpoint(self._directory, whole, self._digest)
                self._saved_now = True

    def restore(self, loop: Loop) -> None:
        """Go back to the last checkpoint, or to the start, and say so, if there is none yet.

        Raises
        ------
        CheckpointError
            If it is damaged, gone, or holds another state than this version saves, or tables lack rows that it counts.
        """
        with _collector_at_rest():
            state = load_checkpoint(self._directory, self._digest)
            if state is None:
                self._recorder.start_again()
                _log.warning("%s holds no checkpoint yet: the run starts from its beginning", self._directory.parent)
                return
            with restoring(self._directory):
                self._restore(loop, state)
        version = loop.strategy.model.version
        self._saved = version - version % self._every
        self._saved_now = True

    def _restore(self, loop: Loop, state: Mapping[str, Any]) -> None:
        seconds = {"wall_seconds": 0.0} | ({} if self._kernels is None else {"ntk_seconds": 0.0})
        refuse_difference({name: entry for name, entry in state.items() if name not in ("loop", "records")}, seconds)
        with within("loop"):
            loop.load_state_dict(state["loop"])
        with within("records"):
            self._recorder.load_state_dict(state["records"])
        self._before = float(state["wall_seconds"])
        if self._kernels is not None:
            self._kernels.wall_seconds = float(state["ntk_seconds"])


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No search for garbage meanwhile: it goes over the many lasting objects of a large state again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
