"""Running an experiment: its directory, observers, checkpoints and signals."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clients.trainer import LocalTrainer
from fedmtl.checkpoint import load_checkpoint, save_checkpoint, save_model
from fedmtl.config import EngineSection, StopSection
from fedmtl.evaluation import Evaluator
from fedmtl.ntk.measure import KernelProbe
from fedmtl.protocol import Event
from fedmtl.records import Recorder
from fedmtl.records.single_task import SINGLE_TASK, against_single_task
from fedmtl.records.summary import summarise, write_summary
from fedmtl.report import write_report
from simulations.directory import MODEL, RunDirectory
from simulations.experiment import Experiment
from simulations.fleet import SimulatedFleet
from simulations.signals import interruptible
from simulations.workers.base import Workers
from simulations.workers.inline import InlineWorkers
from strategies.fleet import Fleet
from strategies.loop import Loop, Observer
from strategies.observers import Evaluation, KernelLog, Recording

if TYPE_CHECKING:
    from simulations.baselines import Watch


@dataclass(frozen=True)
class RunResult:
    """What became of a run.

    Attributes
    ----------
    directory
        Where its tables are.
    summary
        What `summary.json` says; empty after an interruption.
    ended
        Why it ended; empty after an interruption.
    interrupted
        Whether a signal stopped it, so that it can be resumed.
    """

    directory: Path
    summary: dict[str, Any]
    ended: str
    interrupted: bool


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread meanwhile: on several, sums depend on the machine's cores and small models are slower."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


@one_thread()
def run(
    experiment: Experiment,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    fleet: Callable[[Experiment], Fleet] | None = None,
    observers: Sequence[Observer] = (),
    pictures: bool = True,
    watch_baseline: Watch | None = None,
) -> RunResult:
    """Run an experiment from its start, or on from its last checkpoint, and leave tables, plots and a report behind.

    Parameters
    ----------
    experiment
        What to run.
    out
        The run's directory; default ``records.dir/name``.
    resume
        Go on with an unfinished run: to the same bits as if it had never been cut, if the fleet is simulated.
    overwrite
        Remove a run that is already there.
    fleet
        Makes the fleet; default: simulated devices with the workers that the configuration names.
    observers
        Further observers, such as a progress display.
    pictures
        Whether to draw plots and the report at the end.
    watch_baseline
        Shows the training of single-task baselines, where the configuration asks for them.

    Raises
    ------
    UserError
        If the directory, the data or a checkpoint cannot be used. Nothing is written before all has been checked that
        can be.
    """
    directory = RunDirectory(Path(out) if out is not None else default_directory(experiment))
    directory.check(resume=resume, overwrite=overwrite)
    # Built before the directory is touched: bad data, or a strategy they do not fit, must leave nothing behind.
    data, _ = experiment.data, experiment.devices
    strategy = experiment.new_strategy()
    singles = _single_task_values(experiment, directory.path, watch_baseline)
    if singles is None:
        return RunResult(directory.path, {}, "", True)
    world = (fleet or simulated_fleet)(experiment)
    try:
        if not resume:
            directory.open(experiment, simulated=world.simulated)
        recorder = Recorder(
            directory.path,
            data.tasks,
            kernels=experiment.config.records.ntk_every > 0,
            connections=not world.simulated,
        )
        seconds = experiment.nominal_seconds if world.simulated else None
        evaluator = Evaluator(experiment.new_model(), data, seconds)
        evaluation = Evaluation(evaluator, recorder, experiment.config.records.evaluate_every)
        kernels = kernel_log(experiment, recorder)
        watching = [evaluation, *(() if kernels is None else (kernels,)), *observers]
        checkpointer = Checkpointer(directory.checkpoint, recorder, experiment, kernels)
        loop = Loop(strategy, world, [Recording(recorder), *watching, checkpointer])
        if resume:
            checkpointer.restore(loop)
        with interruptible(loop):
            loop.run(stop_rule(experiment.config.stop, evaluation))
        if loop.interrupted:
            if loop.begun:
                checkpointer.save(loop)
            return RunResult(directory.path, {}, "", True)
    finally:
        world.close()
    recorder.finish()
    save_model(directory.path / MODEL, loop.strategy.model)
    summary = _summary(experiment, recorder, loop, checkpointer.wall_seconds)
    if kernels is not None:
        summary["ntk_seconds"] = kernels.wall_seconds
    if singles:
        summary[SINGLE_TASK] = against_single_task(summary, singles)
    if pictures:
        write_report(directory.path, summary)
    # Last, for it marks the run as finished.
    write_summary(directory.path, summary)
    return RunResult(directory.path, summary, loop.ended, False)


def _single_task_values(
    experiment: Experiment, directory: Path, watch: Watch | None
) -> dict[str, dict[str, Any]] | None:
    """The single-task baselines that the configuration asks for: none if it does not; None after an interruption."""
    if not experiment.config.records.baselines:
        return {}
    from simulations.baselines import single_task_values  # which runs them, with this module

    return single_task_values(experiment, directory, watch)


def _summary(experiment: Experiment, recorder: Recorder, loop: Loop, wall_seconds: float) -> dict[str, Any]:
    config, target = experiment.config, experiment.config.stop.target
    return summarise(
        recorder,
        name=config.name,
        strategy=config.strategy.name,
        seed=config.seed,
        ended=loop.ended,
        time=loop.fleet.now(),
        wall_seconds=wall_seconds,
        target=None if target is None else (target.task, target.value),
    )


def kernel_log(experiment: Experiment, recorder: Recorder) -> KernelLog | None:
    """What measures the model's kernels during the run, if anything is to."""
    every = experiment.config.records.ntk_every
    if not every:
        return None
    probe = KernelProbe(experiment.new_model(), experiment.data, experiment.config.seed)
    return KernelLog(probe, recorder, every)


def default_directory(experiment: Experiment) -> Path:
    """``records.dir/name``."""
    return Path(experiment.config.records.dir) / experiment.config.name


def simulated_fleet(experiment: Experiment) -> Fleet:
    """The fleet that the configuration describes: simulated devices, and the workers it names."""
    workers = new_workers(experiment, experiment.config.engine)
    return SimulatedFleet(experiment.data, experiment.devices, workers, experiment.layout)


def new_workers(experiment: Experiment, engine: EngineSection) -> Workers:
    """The workers that a configuration names."""
    model, data = experiment.new_model(), experiment.data
    if engine.workers == "ray":
        from simulations.workers.ray import RayWorkers

        return RayWorkers(model, data, count=engine.count, device=engine.device)
    return InlineWorkers(LocalTrainer(model, data, device=engine.device))


def stop_rule(section: StopSection, evaluation: Evaluation) -> Callable[[Loop], str | None]:
    """A function that says why a run is over, or None."""

    def stop(loop: Loop) -> str | None:
        if section.versions is not None and loop.strategy.model.version >= section.versions:
            return f"{section.versions} versions were made"
        if section.time is not None and loop.fleet.now() >= section.time:
            return f"{section.time:g} s have passed"
        if section.updates is not None and loop.arrivals - loop.rejected >= section.updates:
            return f"{section.updates} updates arrived"
        if section.target is not None and evaluation.reached(section.target.task, section.target.value):
            return f"task {section.target.task} reached {section.target.value:g}"
        return None

    return stop


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
        self._before = 0.0
        self._started = time.perf_counter()

    @property
    def wall_seconds(self) -> float:
        """Seconds of real time that the run has taken, those before a resume included."""
        return self._before + time.perf_counter() - self._started

    def after_event(self, loop: Loop, event: Event) -> None:
        """Save if a checkpoint is due."""
        version = loop.strategy.model.version
        if version >= self._saved + self._every:
            self._saved = version - version % self._every
            self.save(loop)

    def save(self, loop: Loop) -> None:
        """Save now, if the fleet has a state that can be saved."""
        state = loop.state_dict()
        if state["fleet"] is not None:
            whole = {"loop": state, "records": self._recorder.state_dict(), "wall_seconds": self.wall_seconds}
            if self._kernels is not None:
                whole["ntk_seconds"] = self._kernels.wall_seconds
            save_checkpoint(self._directory, whole, self._digest)

    def restore(self, loop: Loop) -> None:
        """Go back to the last checkpoint, or to the start if there is none yet."""
        state = load_checkpoint(self._directory, self._digest)
        if state is None:
            return
        loop.load_state_dict(state["loop"])
        self._recorder.load_state_dict(state["records"])
        self._before = float(state["wall_seconds"])
        if self._kernels is not None:
            self._kernels.wall_seconds = float(state["ntk_seconds"])
        version = loop.strategy.model.version
        self._saved = version - version % self._every
