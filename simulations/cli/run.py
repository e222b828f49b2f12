"""The command ``fedmtl run``."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fedmtl.errors import ConfigError, WriteError
from fedmtl.intervals import fixed
from fedmtl.records.divergence import divergence_words
from fedmtl.records.finals import window_words
from fedmtl.records.single_task import SINGLE_TASK, delta_m_words, percent
from fedmtl.records.summary import SUMMARY
from simulations.baselines import FOLDER, Baseline, single_task_values
from simulations.cli.console import new_console
from simulations.cli.experiments import Wanted
from simulations.cli.progress import new_display
from simulations.directory import EXPERIMENT, RunDirectory
from simulations.experiment import Experiment
from simulations.runner import default_directory, run
from strategies.core.loop import Observer


def start_run(wanted: Wanted, out: Path | None, *, overwrite: bool, baselines: bool = False) -> bool:
    """Run an experiment from its start; whether it ended (rather than was interrupted)."""
    experiment = wanted.load(*(["records.baselines=true"] if baselines else []))
    directory = default_directory(experiment) if out is None else out
    return _run(experiment, directory, resume=False, overwrite=overwrite)


def resume_run(directory: Path, assignments: Sequence[str] = ()) -> bool:
    """Go on with a run, to the end that it has, or is given now; whether it ended (rather than was interrupted).

    Parameters
    ----------
    directory
        The run's.
    assignments
        ``section.key=value`` of what changes no result, such as ``stop.versions=800``.

    Raises
    ------
    RunDirectoryError
        If there is no run in the directory that can go on.
    CheckpointError
        If it cannot go on from what it saved.
    ConfigError
        If an assignment would change what the run computes.
    """
    place = RunDirectory(directory)
    with place.held(resume=True):
        # Before its experiment is read: one of another version may have keys that this one does not know.
        place.check(resume=True, overwrite=False)
        before = Wanted(directory / EXPERIMENT).load()
        place.check_inputs(before)
        for assignment in assignments:
            if Wanted(directory / EXPERIMENT, assignments=[assignment]).load().digest != before.digest:
                raise ConfigError(
                    f"--set {assignment}: a run that goes on computes what it computed before; with --resume, set "
                    "stop.* alone, and what changes no result"
                )
        experiment = Wanted(directory / EXPERIMENT, assignments=assignments).load()
    return _run(experiment, directory, resume=True, overwrite=False)


def _run(experiment: Experiment, directory: Path, *, resume: bool, overwrite: bool) -> bool:
    console = new_console()

    @contextlib.contextmanager
    def watch(baseline: Baseline, place: int, of: int) -> Iterator[Observer]:
        console.print(f"single-task baseline {place} of {of}: {baseline.task}", soft_wrap=True)
        with new_display(console, baseline.experiment.config.stop) as shown:
            yield shown

    try:
        with new_display(console, experiment.config.stop) as display:
            result = run(
                experiment,
                directory,
                resume=resume,
                overwrite=overwrite,
                observers=(display,),
                single_task=functools.partial(single_task_values, watch=watch),
            )
    except WriteError as error:
        command = _how_to_resume(directory)
        raise WriteError(f"{error}; then, to go on: {command}" if command else str(error)) from error
    except KeyboardInterrupt:
        # A second signal, or one outside the loop: what the last checkpoint has is kept.
        _say_how_to_resume(console, directory)
        raise
    if result.interrupted:
        _say_how_to_resume(console, result.directory)
        return False
    _print_summary(console, result.summary, result.directory)
    return True


def _say_how_to_resume(console: Console, directory: Path) -> None:
    if (command := _how_to_resume(directory)) is not None:
        console.print(f"interrupted; to go on: {command}", soft_wrap=True)
    elif (directory.parent / FOLDER).is_dir():
        console.print("interrupted before the run; the same command goes on, and keeps the baselines that are there")


def _how_to_resume(directory: Path) -> str | None:
    """The command that goes on with the run in a directory; None if it holds no unfinished one."""
    if not (directory / EXPERIMENT).is_file() or (directory / SUMMARY).is_file():
        return None
    return f"fedmtl run --resume {shlex.quote(str(directory))}"


def _print_summary(console: Console, summary: Mapping[str, Any], directory: Path) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    single = summary.get(SINGLE_TASK)
    for name in (
        "task",
        "metric",
        "last",
        "mean",
        "best",
        *(("single-task", "change (+ is worse)") if single else ()),
    ):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right", overflow="fold")
    for task in summary["tasks"]:
        direction = "higher" if task["higher_is_better"] else "lower"
        values = [task[key] for key in ("last", "mean_of_last", "best")]
        change = []
        if single:
            values.append(single["tasks"][task["name"]]["value"])
            change.append(percent(single["tasks"][task["name"]]["change"]))
        cells = ("-" if value is None else fixed(value, 4) for value in values)
        table.add_row(task["name"], f"{task['metric']} ({direction} is better)", *cells, *change)
    console.print(table)
    console.print(f"means are over {window_words(summary.get('mean_over'))}", soft_wrap=True)
    if single:
        console.print(f"delta-m {delta_m_words(single)}", soft_wrap=True)
    updates = summary["updates"]
    rejected = f", {updates['rejected']:,} rejected" if updates["rejected"] else ""
    console.print(
        f"{summary['ended']}: {summary['time']:,.0f} s of virtual time, {updates['applied']:,} updates applied"
        f"{rejected}, in {summary['wall_seconds']:.1f} s",
        soft_wrap=True,
    )
    if "ntk_seconds" in summary:
        seconds = summary["ntk_seconds"]
        console.print(f"kernels measured in {seconds:.1f} s, {seconds / summary['wall_seconds']:.1%} of the run")
    if diverged := summary.get("diverged"):
        console.print(f"this run {divergence_words(diverged)}", soft_wrap=True, style="bold red")
    if (report := directory / "report.html").is_file():
        console.print(f"report: {report}", soft_wrap=True)
