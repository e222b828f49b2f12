"""``fedmtl run``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fedmtl.cli.console import new_console
from fedmtl.cli.experiments import load_experiment
from fedmtl.cli.progress import new_display
from fedmtl.errors import RunDirectoryError
from fedmtl.records.summary import SUMMARY
from simulations.directory import EXPERIMENT
from simulations.experiment import Experiment
from simulations.runner import default_directory, run


def start_run(
    path: Path | None, assignments: Sequence[str], seed: int | None, out: Path | None, *, overwrite: bool
) -> bool:
    """Run an experiment from its start; whether it ended (rather than was interrupted)."""
    experiment = load_experiment(path, assignments, seed)
    directory = default_directory(experiment) if out is None else out
    return _run(experiment, directory, resume=False, overwrite=overwrite)


def resume_run(directory: Path) -> bool:
    """Go on with an unfinished run; whether it ended (rather than was interrupted).

    Raises
    ------
    RunDirectoryError
        If there is no unfinished run in the directory.
    """
    path = directory / EXPERIMENT
    if not path.is_file():
        raise RunDirectoryError(f"{directory} holds no run to resume ({EXPERIMENT} is not there)")
    return _run(load_experiment(path, (), None), directory, resume=True, overwrite=False)


def _run(experiment: Experiment, directory: Path, *, resume: bool, overwrite: bool) -> bool:
    console = new_console()
    try:
        with new_display(console, experiment.config.stop) as display:
            result = run(experiment, directory, resume=resume, overwrite=overwrite, observers=(display,))
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
    if (directory / EXPERIMENT).is_file() and not (directory / SUMMARY).is_file():
        command = f"fedmtl run --resume {shlex.quote(str(directory))}"
        console.print(f"interrupted; to go on: {command}", soft_wrap=True, markup=False)


def _print_summary(console: Console, summary: Mapping[str, Any], directory: Path) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("task", "metric", "last", "mean of last 20", "best"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for task in summary["tasks"]:
        direction = "higher" if task["higher_is_better"] else "lower"
        values = ("-" if task[key] is None else f"{task[key]:.4f}" for key in ("last", "mean_of_last", "best"))
        table.add_row(task["name"], f"{task['metric']} ({direction} is better)", *values)
    console.print(table)
    updates = summary["updates"]
    rejected = f", {updates['rejected']:,} rejected" if updates["rejected"] else ""
    console.print(
        f"{summary['ended']}: {summary['time']:,.0f} s of virtual time, {updates['applied']:,} updates applied"
        f"{rejected}, in {summary['wall_seconds']:.1f} s",
        soft_wrap=True,
        markup=False,
    )
    if "ntk_seconds" in summary:
        seconds = summary["ntk_seconds"]
        console.print(f"kernels measured in {seconds:.1f} s, {seconds / summary['wall_seconds']:.1%} of the run")
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True, markup=False)
