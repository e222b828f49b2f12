"""``fedmtl study``."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedmtl.cli.console import new_console
from simulations.study import Cell, Study, run_directory, run_study
from simulations.study_baselines import StudyBaselines
from simulations.study_plots import draw
from simulations.study_results import collect, write_table


def start_study(path: Path, out: Path | None, workers: int | None) -> bool:
    """Run what is missing of a study, and write its results; whether every experiment ended.

    An interrupted study goes on with the same command: finished experiments are not done again.
    """
    study = Study.load(path)
    directory = Path("studies") / study.name if out is None else out
    console = new_console()
    cells = [*itertools.chain.from_iterable(study.trials().values()), *study.cells()]
    done = sum((run_directory(directory, cell) / "summary.json").exists() for cell in cells)
    total = len(cells)
    if study.baselines:
        alone, there = StudyBaselines(study, directory).count()
        total, done = total + alone, done + there
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(study.name, total=total, completed=done)

        def progress(cell: Cell, fault: Exception | None) -> None:
            bar.advance(task)
            if fault is not None:
                bar.console.print(f"failed: {cell.name}: {fault}", markup=False, soft_wrap=True)

        failed = run_study(study, directory, workers=workers or os.cpu_count() or 1, progress=progress)
    results = collect(study, directory)
    console.print(f"table: {write_table(study, results, directory)}", markup=False, soft_wrap=True)
    for picture in draw(study, results, directory):
        console.print(f"plot: {picture.path}", markup=False, soft_wrap=True)
    return not failed
