"""Single-task baselines: the same experiment with one task at a time, trained once and kept.

The baseline of a task differs from its experiment in two things: it learns that task alone (``tasks.only``), on the
clients that own it there, and all balancing is equal, for there is nothing to balance. Data, partition, devices,
strategy, training, seed and limits are the same. So experiments that differ in balancing alone share their baselines.

A baseline is a run like any other, in a directory that is named by a fingerprint of all that decides its result: the
configuration, the contents of the files that it names, and the versions of the packages that compute. It gets that
name when it is finished, in one step; what was cut short is done again. Two processes that need the same one at once
both train it, to the same bits, and one of the two is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fedmtl.checkpoint import digest
from fedmtl.errors import ConfigError, RunDirectoryError, UserError
from fedmtl.inputs import Input, by_contents, recorded_inputs
from fedmtl.records.single_task import finals_of
from fedmtl.records.summary import SUMMARY, package_versions, read_summary
from fedmtl.results import RESULTS
from simulations.digests import entering
from simulations.directory import EXPERIMENT
from simulations.experiment import Experiment
from simulations.runner import run
from strategies.core.loop import Observer

FOLDER = "baselines"
"""Where baselines are kept, beside the runs that need them."""

_PACKAGES = ("fedmtl", "torch", "numpy")


@dataclass(frozen=True)
class Baseline:
    """One task of an experiment, learned alone.

    Attributes
    ----------
    task
        Its name.
    tables
        The configuration.
    """

    task: str
    tables: Mapping[str, Any]

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment in which the task is learned alone."""
        return Experiment.load(tables=self.tables)

    @cached_property
    def key(self) -> str:
        """The name of the baseline's directory: a fingerprint of what changes its results."""
        return fingerprint(self.experiment)


WatchBaseline = Callable[[Baseline, int, int], AbstractContextManager[Observer]]
"""Makes what shows the training of a baseline: the n-th (from 1) of so many."""


def baselines(experiment: Experiment, tasks: list[str] | None = None) -> list[Baseline]:
    """The baselines of an experiment, a task each.

    Parameters
    ----------
    experiment
        The experiment.
    tasks
        The names of its tasks, if they are known: else its data are built.

    Raises
    ------
    ConfigError
        If it has one task only, or ends at a target.
    """
    names = [task.name for task in experiment.data.tasks] if tasks is None else tasks
    if len(names) < 2:
        raise ConfigError(f"baselines: the experiment has one task, {names[0]!r}, and is its own single-task baseline")
    if experiment.config.stop.target is not None:
        raise ConfigError(
            "baselines: stop.target ends the run at a value of one task, so that a baseline would end elsewhere; limit "
            "stop.versions, stop.time or stop.updates instead"
        )
    common = {key: value for key, value in experiment.tables.items() if key not in ("balancing", "name", "records")}
    common["name"] = "single-task"
    common["balancing"] = {"name": "equal"}
    common["records"] = {"evaluate_every": experiment.config.records.evaluate_every}
    return [Baseline(name, {**common, "tasks": {**common["tasks"], "only": name}}) for name in names]


def fingerprint(experiment: Experiment, inputs: Mapping[str, Input] | None = None) -> str:
    """Of all that decides what an experiment's evaluations are, except for the sources of this program.

    Parameters
    ----------
    experiment
        The experiment.
    inputs
        What it read, if that is known; else it is what lies there now.
    """
    tables = by_contents(experiment.tables, experiment.inputs if inputs is None else inputs)
    versions = package_versions()
    return digest(
        {
            **entering({key: value for key, value in tables.items() if key != "records"}),
            "stop": tables["stop"],
            "results": RESULTS,
            "device": experiment.config.engine.device,
            "evaluate_every": experiment.config.records.evaluate_every,
            "versions": {name: versions[name] for name in _PACKAGES if name in versions},
        }
    )


def is_there(baseline: Baseline, cache: Path) -> bool:
    """Whether a baseline has been trained.

    Raises
    ------
    RunDirectoryError
        If its directory holds something else.
    """
    if not (cache / baseline.key).exists():
        return False
    read_value(baseline, cache)
    return True


def read_value(baseline: Baseline, cache: Path) -> float:
    """The final metric of a trained baseline; not a number if it diverged, so that nothing is measured against it.

    Raises
    ------
    RunDirectoryError
        If its directory holds no finished run, or one of another experiment.
    """
    directory = cache / baseline.key
    remedy = f"remove {directory}, and it is trained again"
    try:
        summary = read_summary(directory)
        found = dict(zip([task["name"] for task in summary["tasks"]], finals_of(summary), strict=True))
        # By what it read then: the files may have been moved since.
        kept = fingerprint(Experiment.load(directory / EXPERIMENT), recorded_inputs(directory))
    except (UserError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"the single-task baseline of {baseline.task!r} is damaged ({error}); {remedy}"
        ) from None
    if kept != baseline.key or list(found) != [baseline.task]:
        raise RunDirectoryError(f"{directory} holds another run than the baseline of {baseline.task!r}; {remedy}")
    return float(found[baseline.task])


def train(baseline: Baseline, cache: Path, observer: Observer | None = None) -> bool:
    """Train a baseline and keep it; whether it came to its end (rather than was interrupted).

    Raises
    ------
    UserError
        If it cannot be trained or written.
    """
    directory = cache / baseline.key
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{baseline.key}-", dir=cache) as temporary:
            made = Path(temporary) / "run"
            observers = () if observer is None else (observer,)
            if run(baseline.experiment, made, observers=observers, pictures=False).interrupted:
                return False
            try:
                made.rename(directory)
            except OSError:
                # Another process was quicker, and has the same bits.
                if not (directory / SUMMARY).exists():
                    raise
    except OSError as error:
        raise RunDirectoryError(f"cannot write {directory}: {error.strerror}; free space there") from error
    return True


def single_task_values(
    experiment: Experiment, run_directory: Path, watch: WatchBaseline | None = None
) -> dict[str, dict[str, Any]] | None:
    """For each task the single-task `value` and the `directory` of its run, trained now where missing.

    Parameters
    ----------
    experiment
        The experiment with all tasks.
    run_directory
        Where its run is kept; baselines are beside it, and `directory` is relative to it.
    watch
        Shows the training of those that are missing.

    Returns
    -------
    dict
        None after an interruption; baselines that were finished are kept.

    Raises
    ------
    UserError
        If the experiment can have no baselines, or one cannot be trained, written or read.
    """
    every, cache = baselines(experiment), run_directory.parent / FOLDER
    missing = [baseline for baseline in every if not is_there(baseline, cache)]
    for place, baseline in enumerate(missing, start=1):
        with nullcontext() if watch is None else watch(baseline, place, len(missing)) as observer:
            if not train(baseline, cache, observer):
                return None
    return {
        baseline.task: {"value": read_value(baseline, cache), "directory": f"../{FOLDER}/{baseline.key}"}
        for baseline in every
    }
