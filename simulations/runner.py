"""Running an experiment, from its start or on from its last checkpoint."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clients.trainer import LocalTrainer
from fedmtl.checkpoint import save_model
from fedmtl.config import EngineSection, StopSection
from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel
from fedmtl.randomness import undisturbed_generators
from fedmtl.records.divergence import divergence_words
from fedmtl.records.summary import write_summary
from simulations.directory import MODEL, RunDirectory
from simulations.experiment import Experiment
from simulations.fleet import SimulatedFleet
from simulations.forewarnings import forewarnings
from simulations.observers import Evaluation
from simulations.signals import interruptible
from simulations.watch import Watch
from simulations.workers.base import Workers
from simulations.workers.inline import InlineWorkers
from simulations.workers.ray import RayWorkers
from strategies.core.fleet import Fleet
from strategies.core.loop import Loop, Observer

if TYPE_CHECKING:
    from fedmtl.plots.style import Format

_log = logging.getLogger(__name__)

SingleTaskProvider = Callable[[Experiment, Path], dict[str, dict[str, Any]] | None]
"""From an experiment and its run's directory to the single-task `value` of each task and the `directory` of its run;
None after an interruption. :func:`simulations.baselines.single_task_values` is one: it trains them, with `run`."""


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
@undisturbed_generators()
def run(
    experiment: Experiment,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    fleet: Callable[[Experiment], Fleet] | None = None,
    observers: Sequence[Observer] = (),
    pictures: bool = True,
    single_task: SingleTaskProvider | None = None,
) -> RunResult:
    """Run an experiment from its start, or on from its last checkpoint, and leave tables, plots and a report behind.

    Parameters
    ----------
    experiment
        What to run.
    out
        The run's directory; default ``records.dir/name``.
    resume
        Go on with an unfinished run: to the same bits as if it had never been cut, if the fleet is simulated. With
        other limits in ``stop`` a finished one goes on, too, as if they had been its limits from the start.
    overwrite
        Remove a run that is already there.
    fleet
        Makes the fleet; default: simulated devices with the workers that the configuration names.
    observers
        Further observers, such as a progress display.
    pictures
        Whether there are pictures, in the formats of ``records.pictures``, and a report at the end.
    single_task
        Provides the single-task values, where the configuration asks for them; ``simulations.run`` is this function
        with :func:`simulations.baselines.single_task_values` for it.

    Raises
    ------
    UserError
        If the directory, the data or a checkpoint cannot be used, or ``records.baselines`` is set and nothing provides
        single-task values. Nothing is written before all has been checked that can be, save for the lock that keeps
        other processes out of the directory meanwhile.
    """
    directory = RunDirectory(Path(out) if out is not None else default_directory(experiment))
    with directory.held(resume=resume):
        directory.check(resume=resume, overwrite=overwrite)
        return _run(
            experiment,
            directory,
            resume=resume,
            fleet=fleet or simulated_fleet,
            observers=observers,
            pictures=pictures,
            provide=_provider(experiment, single_task),
        )


def _run(
    experiment: Experiment,
    directory: RunDirectory,
    *,
    resume: bool,
    fleet: Callable[[Experiment], Fleet],
    observers: Sequence[Observer],
    pictures: bool,
    provide: SingleTaskProvider,
) -> RunResult:
    """`run` in a directory that is held, and may be used."""
    if resume:
        directory.check_inputs(experiment)
    ends_elsewhere = resume and directory.check_experiment(experiment)
    # Built before the directory is touched: bad data, or a strategy they do not fit, must leave nothing behind.
    _ = experiment.data, experiment.devices
    strategy = experiment.new_strategy()
    if not resume:
        for warning in forewarnings(experiment, strategy):
            _log.warning("%s", warning)
    single_task_values = provide(experiment, directory.path)
    if single_task_values is None:
        return RunResult(directory.path, {}, "", True)
    world = fleet(experiment)
    try:
        if not resume:
            directory.open(experiment, simulated=world.simulated)
        watch = Watch(experiment, directory, simulated=world.simulated)
        loop = Loop(strategy, world, watch.observers(observers))
        stop = stop_rule(experiment.config.stop, watch.evaluation)
        if resume:
            watch.restore(loop)
            if ends_elsewhere and (reason := stop(loop)):
                raise ConfigError(f"stop: the run in {directory.path} has got there already: {reason}; ask for more")
            directory.reopen(experiment, simulated=world.simulated)
        with interruptible(loop):
            loop.run(stop)
        if loop.interrupted:
            if loop.begun:
                watch.checkpointer.save(loop)
            return RunResult(directory.path, {}, "", True)
    finally:
        world.close()
    watch.recorder.finish()
    summary = watch.summary(loop, single_task_values)
    formats = experiment.config.records.pictures if pictures else None
    _leave_behind(directory.path, loop.strategy.model, summary, formats)
    return RunResult(directory.path, summary, loop.ended, False)


def _provider(experiment: Experiment, single_task: SingleTaskProvider | None) -> SingleTaskProvider:
    """What provides the single-task values that the configuration asks for: none if it asks for none."""
    if not experiment.config.records.baselines:
        return lambda experiment, directory: {}
    if single_task is None:
        raise ConfigError(
            "records.baselines: this way of running trains no single-task models; start the run with fedmtl run, flwr "
            "run or simulations.run, or leave records.baselines out"
        )
    return single_task


def _leave_behind(path: Path, model: GlobalModel, summary: dict[str, Any], formats: Sequence[Format] | None) -> None:
    """Write what a finished run leaves beside its tables; without formats no report, either.

    That a report cannot be made does not undo the run.
    """
    save_model(path / MODEL, model)
    if formats is not None:
        try:
            from fedmtl.report import write_report  # matplotlib takes a second, and runs without a report do without it

            write_report(path, summary, formats)
        except Exception as error:
            _log.warning(
                "the report of %s could not be made (%s: %s); all else is there, and fedmtl report %s makes it anew",
                path,
                type(error).__name__,
                error,
                shlex.quote(str(path)),
            )
    # Last, for it marks the run as finished.
    write_summary(path, summary)


def default_directory(experiment: Experiment) -> Path:
    """Where a run goes if nothing else is asked for: ``records.dir/name``."""
    return Path(experiment.config.records.dir) / experiment.config.name


def simulated_fleet(experiment: Experiment) -> Fleet:
    """The fleet that the configuration describes: simulated devices, and the workers it names."""
    workers = new_workers(experiment, experiment.config.engine)
    try:
        return SimulatedFleet(experiment.data, experiment.devices, workers, experiment.layout)
    except BaseException:
        workers.close()
        raise


def new_workers(experiment: Experiment, engine: EngineSection) -> Workers:
    """The workers that a configuration names."""
    model, data = experiment.new_model(), experiment.data
    if engine.workers == "ray":
        return RayWorkers(model, data, count=engine.count, device=engine.device)
    return InlineWorkers(LocalTrainer(model, data, device=engine.device))


def stop_rule(section: StopSection, evaluation: Evaluation) -> Callable[[Loop], str | None]:
    """A function that says why a run is over, or None."""

    def stop(loop: Loop) -> str | None:
        if section.diverged and evaluation.diverged is not None:
            return f"the run {divergence_words(evaluation.diverged.as_json())}"
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
