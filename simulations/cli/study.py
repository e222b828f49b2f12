"""The command ``fedmtl study``."""

from __future__ import annotations

import itertools
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fedmtl.text import escaped
from simulations.cli.console import is_live, new_console
from simulations.cli.progress import duration
from simulations.studies.baselines import StudyBaselines
from simulations.studies.file import load_study, study_file
from simulations.studies.plots import draw
from simulations.studies.results import collect, count_diverged, write_table
from simulations.studies.run import is_done, run_study, with_other_results
from simulations.studies.study import Cell, Study

SECONDS = 5.0
"""Between two lines of a log."""


def start_study(path: Path, out: Path | None, workers: int | None) -> bool:
    """Run what is missing of a study, and write its results; whether every experiment ended.

    The study is a file, or the name of one that ships with FedMTL. An interrupted study goes on with the same command:
    finished experiments are not done again.
    """
    study = load_study(study_file(path))
    directory = Path("studies") / study.name if out is None else out
    console = new_console()
    if other := with_other_results(study, directory):
        console.print(f"{other:,} finished experiments are of a FedMTL with other results: they are run anew")
    try:
        done, total = _count(study, directory)
        with Progress(*_columns(), console=console, disable=not is_live(console)) as bar:
            task = bar.add_task(escaped(study.name, console.encoding), total=total, completed=done)
            log = _lines(console, study.name, done, total)

            def progress(cell: Cell, fault: Exception | None) -> None:
                bar.advance(task)
                if fault is not None:
                    console.print(f"failed: {cell.name}: {fault}", soft_wrap=True)
                if bar.disable:
                    log()

            failed = run_study(study, directory, workers=workers or os.cpu_count() or 1, progress=progress)
        results = collect(study, directory)
        console.print(f"table: {write_table(study, results, directory)}", soft_wrap=True)
        if diverged := count_diverged(study, results):
            console.print(f"diverged: {diverged} of the runs; the table says which", soft_wrap=True)
        for picture in draw(study, results, directory):
            console.print(f"plot: {picture.path}", soft_wrap=True)
    except KeyboardInterrupt:
        given = "" if out is None else f" --out {shlex.quote(str(out))}"
        command = f"fedmtl study {shlex.quote(str(path))}{given}"
        console.print(f"finished experiments are kept; to go on: {command}", soft_wrap=True)
        raise
    return not failed


def _count(study: Study, directory: Path) -> tuple[int, int]:
    """How many experiments and baselines are there already, and how many there will be."""
    cells = [*itertools.chain.from_iterable(study.trials().values()), *study.cells()]
    done = sum(is_done(directory, cell) for cell in cells)
    if not study.baselines:
        return done, len(cells)
    alone, there = StudyBaselines(study, directory).count()
    return done + there, len(cells) + alone


def _columns() -> tuple[ProgressColumn, ...]:
    bar = BarColumn(bar_width=None)
    return (
        TextColumn("{task.description}", markup=False),
        bar,
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _lines(console: Console, name: str, done: int, total: int) -> Callable[[], None]:
    """What is called as each experiment is done, and prints a line now and then, for a log."""
    began = last = time.perf_counter()
    start = done

    def log() -> None:
        nonlocal done, last
        done += 1
        now = time.perf_counter()
        if done == total or now >= last + SECONDS:
            last = now
            left = duration((now - began) / (done - start) * (total - done))
            console.print(f"{name}   {done:,} of {total:,}   {left} left", soft_wrap=True)

    return log
