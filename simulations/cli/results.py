"""``fedmtl report`` and ``compare``: what finished runs have to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich import box
from rich.table import Table

from fedmtl.compare import RankBy, compare
from fedmtl.errors import UserError
from fedmtl.plots.style import Format
from fedmtl.report import write_report
from simulations.cli.console import new_console


def show_report(directory: Path, formats: str | None) -> None:
    """Draw a finished run's plots and report anew, and say where they are.

    Raises
    ------
    UserError
        If the directory holds no finished run, or a format is unknown.
    """
    path = write_report(directory, formats=None if formats is None else _formats(formats))
    new_console().print(f"report: {path}", soft_wrap=True)


def _formats(text: str) -> list[Format]:
    known, wanted = get_args(Format), [part.strip().lower() for part in text.split(",")]
    if unknown := [part for part in wanted if part not in known]:
        raise UserError(f"--format {text}: {unknown[0]!r} is no format of pictures; write some of {','.join(known)}")
    return [kind for kind in known if kind in wanted]


def show_comparison(directories: Sequence[Path], targets: Sequence[str], by: str, out: Path) -> None:
    """Print a table with a column per run, and say where the plots are.

    Raises
    ------
    UserError
        If a directory holds no finished run, the runs cannot be compared, or a target or what to rank by is wrong.
    """
    order = next((known for known in get_args(RankBy) if known == by.lower()), None)
    if order is None:
        raise UserError(f"--by {by}: write one of {', '.join(get_args(RankBy))}")
    comparison = compare(directories, out, dict(_target(text) for text in targets), by=order)
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(comparison.header):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in comparison.rows:
        table.add_row(*row)
    console = new_console()
    console.print(table)
    for path in comparison.plots:
        console.print(f"plot: {path}", soft_wrap=True)


def _target(text: str) -> tuple[str, float]:
    task, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not task or not math.isfinite(number):
        raise UserError(f"--target {text}: write TASK=VALUE, such as digit=0.9")
    return task, number
