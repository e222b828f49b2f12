"""``fedmtl ntk``: the tangent kernels of an experiment's model and data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from fedmtl.checkpoint import load_model
from fedmtl.errors import RunDirectoryError, UserError
from fedmtl.ntk.decay import TaskDecay
from fedmtl.ntk.instrument import ALL, Findings, Settings, examine
from fedmtl.ntk.measure import ALL_TASKS, KernelRow, client_matrix
from fedmtl.ntk.spectrum import FLOOR
from fedmtl.plots.kernels import (
    Decay,
    DirectionDecay,
    draw_alignment,
    draw_decay,
    draw_directions,
    draw_spectra,
)
from fedmtl.plots.style import save
from fedmtl.protocol import GlobalModel
from fedmtl.records.schemas import NTK
from fedmtl.records.setting import write_table
from fedmtl.records.summary import read_summary
from simulations.cli.console import new_console
from simulations.cli.experiments import Wanted
from simulations.directory import EXPERIMENT, MODEL
from simulations.experiment import Experiment
from simulations.runner import one_thread

_DIRECTIONS = (1, 2, 4, 8, 16)
_PANELS = 12

DECAY = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("predicted", pa.float64(), nullable=False),
        pa.field("measured", pa.float64(), nullable=False),
    ]
)


@one_thread()
def show_kernels(
    wanted: Wanted,
    run: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Measure an experiment's initial model, or a finished run's, print tables, and write plots and tables.

    Raises
    ------
    UserError
        If the experiment or the run cannot be used, or the files cannot be written.
    """
    if settings.rate is not None and not 0 < settings.rate < math.inf:
        raise UserError(f"--rate {settings.rate:g}: must be a positive number")
    if run is None:
        experiment = wanted.load()
        version, time, place = experiment.initial, 0.0, Path("ntk")
    else:
        if wanted.given:
            raise UserError(f"--run {run} brings its own experiment; leave out {', '.join(wanted.given)}")
        if not (run / EXPERIMENT).is_file():
            raise RunDirectoryError(f"{run} holds no run ({EXPERIMENT} is not there)")
        experiment = Wanted(run / EXPERIMENT).load()
        time = float(read_summary(run)["time"])
        version, place = load_model(run / MODEL, experiment.layout), run / "ntk"
    directory = place if out is None else out
    console = new_console()
    with console.status("", spinner="line") as status:
        found = examine(
            experiment.new_model(),
            version,
            experiment.data,
            experiment.config.seed,
            settings,
            seconds=experiment.nominal_seconds,
            time=time,
            progress=lambda what: status.update(console.render_str(what)),
        )
    _print(console, experiment, version, found, settings)
    _write(directory, found)
    for plot in _draw(experiment, found, directory):
        console.print(f"plot: {plot}", soft_wrap=True)
    if (left := len(found.decays) - _PANELS) > 0:
        console.print(f"the plots of decay show the first {_PANELS} tasks, decay.parquet the other {left}, too")
    console.print(f"table: {directory / 'ntk.parquet'}", soft_wrap=True)


def _print(console: Console, experiment: Experiment, version: GlobalModel, found: Findings, settings: Settings) -> None:
    data = experiment.data
    layout = experiment.layout
    size = layout.shared.stop - layout.shared.start if settings.parameters == "shared" else layout.trainable.stop
    console.print(
        f"version {version.version}, {len(found.sample.positions):,} examples of {data.clients:,} clients, kernels of "
        f"the {size:,} {'shared parameters' if settings.parameters == 'shared' else 'parameters'}",
        soft_wrap=True,
    )
    everyone = [row for row in found.rows if row.client is None]
    for kind in ("outputs", "losses"):
        console.print(_tasks_table(kind, [row for row in everyone if row.kernel == kind]))
    if any(row.trace_error for row in everyone):
        console.print("± where a kernel did not fit into --memory: Lanczos and Hutchinson's estimate")
    console.print(_clients_table(experiment, found))
    console.print(_decay_table(found.decays, settings))


def _tasks_table(kind: str, rows: Sequence[KernelRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"kernels of {kind}", title_justify="left")
    table.add_column("task", overflow="fold")
    names = ["trace", "top eigenvalue", "condition", "effective rank", "alignment with others"]
    for name in names + (["gradient cosine"] if kind == "losses" else []):
        table.add_column(name, justify="right")
    for place, row in enumerate(rows):
        trace = f"{row.trace:.4g}" + (f" ± {row.trace_error:.1g}" if row.trace_error else "")
        cells = [trace, f"{row.top:.4g}", _condition(row.condition), _number(row.effective_rank)]
        cells.append(_mean_of_others(row.alignment, place))
        if kind == "losses":
            cells.append(_mean_of_others(row.cosine, place))
        table.add_row(row.task, *cells)
    return table


def _clients_table(experiment: Experiment, found: Findings) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title="clients, by speed: kernels of the sum of a client's losses", title_justify="left"
    )
    for name in ("client", "seconds", "examples", "trace", "top eigenvalue", "effective rank", "alignment", "cosine"):
        table.add_column(name, justify="right")
    rows = {row.client: row for row in found.rows if row.client is not None and row.task == ALL_TASKS}
    for place, client in enumerate(found.clients):
        row = rows[client]
        table.add_row(
            str(client),
            f"{experiment.nominal_seconds[client]:.3g}",
            str(row.examples),
            f"{row.trace:.4g}",
            f"{row.top:.4g}",
            _number(row.effective_rank),
            _mean_of_others(row.alignment, place),
            _mean_of_others(row.cosine, place),
        )
    return table


def _decay_table(decays: Sequence[TaskDecay], settings: Settings) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{settings.steps:,} steps of gradient descent on all parameters, each task alone",
        title_justify="left",
    )
    table.add_column("task", overflow="fold")
    for name in ("rate", "curvature", "loss before", "predicted after", "measured after"):
        table.add_column(name, justify="right")
    for decay in decays:
        numbers = [decay.rate, decay.curvature, *(float(v.mean()) for v in (decay.measured[0], decay.predicted[-1]))]
        table.add_row(decay.task.name, *map(_number, [*numbers, float(decay.measured[-1].mean())]))
    return table


def _condition(value: float | None) -> str:
    # At the floor nothing is known but that it is no smaller.
    return "-" if value is None else f">= {1 / FLOOR:.0e}" if value >= 0.999 / FLOOR else f"{value:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _mean_of_others(values: Sequence[float | None], own: int) -> str:
    others = [value for place, value in enumerate(values) if place != own and value is not None]
    return f"{np.mean(others):.3f}" if others else "-"


def _write(directory: Path, found: Findings) -> None:
    write_table(directory / "ntk.parquet", pa.table(list(zip(*found.rows, strict=True)), schema=NTK))
    lines = [
        (decay.task.name, line.group, step, float(line.predicted[step]), float(line.measured[step]))
        for decay in found.decays
        for line in _lines(decay, {ALL: None, **found.groups["speed"], **found.groups["skew"]})
        for step in range(len(line.measured))
    ]
    write_table(directory / "decay.parquet", pa.table(list(zip(*lines, strict=True)), schema=DECAY))


def _lines(decay: TaskDecay, groups: dict[str, np.ndarray | None]) -> list[Decay]:
    """The mean losses of each group that has examples."""
    lines = []
    for group, places in groups.items():
        members = slice(None) if places is None else torch.from_numpy(places)
        if places is None or len(places):
            predicted, measured = (course[:, members].mean(1).numpy() for course in (decay.predicted, decay.measured))
            lines.append(Decay(group, predicted, measured))
    return lines


def _draw(experiment: Experiment, found: Findings, directory: Path) -> list[Path]:
    """Every plot that there is something for."""
    everyone = [row for row in found.rows if row.client is None]
    spectra = {
        f"kernels of {kind}": {row.task: row.eigenvalues for row in everyone if row.kernel == kind}
        for kind in ("outputs", "losses")
    }
    figures = {"spectra": draw_spectra(spectra)}
    tasks = [row for row in everyone if row.kernel == "losses"]
    if len(tasks) > 1 and tasks[0].alignment:
        matrices = {
            "kernels of losses": _matrix([row.alignment for row in tasks]),
            "mean gradients, cosine": _matrix([row.cosine for row in tasks]),
        }
        figures["alignment-tasks"] = draw_alignment([row.task for row in tasks], "task", matrices, (False, True))
    if len(found.clients) > 1:
        own = [row for row in found.rows if row.client is not None]
        matrices = {
            "kernels of losses": client_matrix(own, ALL_TASKS, "alignment"),
            "mean gradients, cosine": client_matrix(own, ALL_TASKS, "cosine"),
        }
        slowest = np.ptp(experiment.nominal_seconds) > 0
        axis = "client, the fastest first" if slowest else "client"
        figures["alignment-clients"] = draw_alignment([str(c) for c in found.clients], axis, matrices, (False, True))
    shown = found.decays[:_PANELS]
    figures["decay"] = draw_decay({d.task.name: _lines(d, {ALL: None}) for d in shown})
    for kind, groups in found.groups.items():
        if groups:
            figures[f"decay-by-{kind}"] = draw_decay({d.task.name: _lines(d, dict(groups)) for d in shown})
    if squared := {d.task.name: _direction_lines(d) for d in shown if d.directions is not None}:
        figures["directions"] = draw_directions(squared)
    return [save(figure, directory / f"{name}.png") for name, figure in figures.items()]


def _matrix(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)


def _direction_lines(decay: TaskDecay) -> list[DirectionDecay]:
    """The residual along the eigenvectors 1, 2, 4, ..., as shares of their start."""
    assert decay.directions is not None
    assert decay.components is not None
    steps = torch.arange(len(decay.components), dtype=torch.float64)
    flow, start = decay.directions.flow(steps), decay.directions.start
    return [
        DirectionDecay(
            f"eigenvector {rank}",
            (flow[:, rank - 1] / start[rank - 1]).numpy(),
            (decay.components[:, rank - 1] / start[rank - 1]).numpy(),
        )
        for rank in _DIRECTIONS
        if rank <= len(start) and abs(float(start[rank - 1])) > 0
    ]
