"""``fedmtl report`` and ``compare``: what finished runs have to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from fedmtl.compare import compare
from fedmtl.errors import UserError
from fedmtl.report import write_report
from simulations.cli.console import new_console


def show_report(directory: Path) -> None:
    """Draw a finished run's plots and report anew, and say where they are."""
    new_console().print(f"report: {write_report(directory)}", markup=False, soft_wrap=True)


def show_comparison(directories: Sequence[Path], targets: Sequence[str], out: Path) -> None:
    """Print a table with a column per run, and say where the plots are.

    Raises
    ------
    UserError
        If a directory holds no finished run, the runs cannot be compared, or a target is wrong.
    """
    comparison = compare(directories, out, dict(_target(text) for text in targets))
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(comparison.header):
        table.add_column(name, justify="right" if place else "left")
    for row in comparison.rows:
        table.add_row(*row)
    console = new_console()
    console.print(table)
    for path in comparison.plots:
        console.print(f"plot: {path}", markup=False, soft_wrap=True)


def _target(text: str) -> tuple[str, float]:
    task, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not task or not math.isfinite(number):
        raise UserError(f"--target {text}: write TASK=VALUE, such as digit=0.9")
    return task, number
