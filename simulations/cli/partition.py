"""``fedmtl partition``: who has which data, and how far that is from everybody having the same."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from fedmtl.data.federated import FederatedData
from fedmtl.errors import UserError
from fedmtl.files import replacing
from fedmtl.partitions.dissimilarity import Dissimilarity, gradient_dissimilarity
from fedmtl.partitions.statistics import TaskStatistics, Undefined, gini, statistics_of
from fedmtl.records import partition_table
from simulations.cli.console import new_console
from simulations.cli.experiments import Wanted
from simulations.experiment import Experiment

NOTHING = "-"
"""What stands for a statistic that has no meaning for a task."""


_NAMES = {
    "total_variation": "total variation distance",
    "jensen_shannon": "Jensen-Shannon divergence",
    "effective_classes": "effective number of classes",
    "wasserstein": "Wasserstein distance",
    "gini": "Gini coefficient",
    "norm": "norm",
    "b": "B",
    "sigma": "sigma",
}
"""What the statistics are called, by the names of their attributes."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """What there is to show of a partition.

    Attributes
    ----------
    data
        The clients' data.
    table
        Their classes, as runs record them (:func:`fedmtl.records.setting.partition_table`).
    counts
        Training examples of each class on each client, shape [clients, classes]; of one class where there are none.
    task
        Whose classes these are; empty where no task has any.
    classes
        What the data call them.
    statistics
        Of each task.
    """

    data: FederatedData
    table: pa.Table
    counts: np.ndarray
    task: str
    classes: Sequence[str]
    statistics: Sequence[TaskStatistics]


def show_partition(wanted: Wanted, clients: int, outs: Sequence[Path], *, gradients: bool = False) -> None:
    """Examples of each class on each client and how skewed that is; pictures and tables where `outs` say.

    Parameters
    ----------
    wanted
        The experiment.
    clients
        How many clients to list.
    outs
        Files to write, of the kinds that their endings name.
    gradients
        Whether to show how much the clients' gradients differ at the first model.

    Raises
    ------
    UserError
        If the experiment is wrong, or a file's ending is unknown, or it cannot be written.
    """
    for out in outs:
        if out.suffix.lower() not in _WRITERS:
            known = ", ".join(f"{suffix} ({what})" for suffix, (what, _) in _WRITERS.items())
            raise UserError(f"--out {out}: give a name that ends in {known.replace(', ', ' or ')}")
    experiment = wanted.load()
    shown = _shown(experiment.data)
    console = new_console()
    console.print(_partition_table(shown.counts, shown.task, clients, console))
    for line in _sizes(shown):
        console.print(line, soft_wrap=True)
    console.print(_statistics_table(shown.statistics))
    _print_reasons(console, {one.task.name: one.reasons for one in shown.statistics})
    if gradients:
        _show_gradients(console, experiment)
    for out in outs:
        what, write = _WRITERS[out.suffix.lower()]
        write(shown, out)
        console.print(f"{what}: {out}", soft_wrap=True)


def _shown(data: FederatedData) -> _Shown:
    found = partition_table(data)
    counts = np.zeros((data.clients, int(np.max(found["class"].to_numpy())) + 1), dtype=np.int64)
    counts[found["client"].to_numpy(), found["class"].to_numpy()] = found["examples"].to_numpy()
    name = (found.schema.metadata or {}).get(b"task", b"").decode()
    classes = next((task.classes for task in data.tasks if task.name == name), ())
    return _Shown(data, found, counts, name, classes, statistics_of(data))


def _partition_table(counts: np.ndarray, name: str, clients: int, console: Console) -> Table:
    """A row for each client and a column for each class; of many, as many as are as wide as the console."""
    endless = console.options.update(width=1 << 16)
    for shown in range(counts.shape[1], 0, -1):
        table = _classes_table(counts, name, clients, shown)
        if console.measure(table, options=endless).maximum <= console.width:
            break
    return table


def _classes_table(counts: np.ndarray, name: str, clients: int, shown: int) -> Table:
    """The table with so many of the classes."""
    rest = ["..."] * (shown < counts.shape[1])
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"training examples by class of {name!r}" if name else "training examples",
        title_justify="left",
    )
    for header in ("client", *map(str, range(shown)), *rest, "all"):
        table.add_column(header, justify="right", no_wrap=True)
    for client, row in enumerate(counts[:clients]):
        cells = [str(n) if n else "·" for n in row[:shown]]
        table.add_row(str(client), *cells, *rest, str(row.sum()), end_section=client == clients - 1)
    if len(counts) > clients:
        table.add_row("...")
    table.add_row("all", *map(str, counts.sum(axis=0)[:shown]), *rest, str(counts.sum()))
    return table


def _sizes(shown: _Shown) -> Iterable[str]:
    counts, data = shown.counts, shown.data
    sizes, imbalance = data.shards.sizes, gini(data.shards.sizes)
    yield (
        f"{data.clients:,} client{'s' * (data.clients != 1)} with {sizes.min():,} to {sizes.max():,} training "
        f"examples, median {np.median(sizes):g}; {data.validation.sizes.sum():,} held out"
    )
    if shown.task:
        yield f"classes on a client: {(counts > 0).sum(axis=1).mean():.1f} of {counts.shape[1]} on average"
    if not isinstance(imbalance, Undefined):
        yield f"imbalance of all clients' sizes: Gini coefficient {imbalance:.2f} (0: all the same)"
    if data.shift is not None:
        yield f"each client's features are shifted: {data.shift.words}; those of the test set are not"


def _statistics_table(statistics: Sequence[TaskStatistics]) -> Table:
    """A row for each task: means and largest values over the clients that own it."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="clients against all of them together: mean (largest) over a task's clients",
        title_justify="left",
    )
    for header in (
        *("task", "clients", "total\nvariation", "Jensen-Shannon,\nbits", "effective classes\n(those of all)"),
        *("Wasserstein,\ndeviations", "Gini\nof sizes"),
    ):
        table.add_column(header, justify="left" if header == "task" else "right")
    for one in statistics:
        table.add_row(
            one.task.name,
            f"{len(one.clients):,}",
            *map(_mean_and_largest, (one.total_variation, one.jensen_shannon)),
            NOTHING
            if isinstance(one.effective_classes, Undefined) or isinstance(one.pool_classes, Undefined)
            else f"{one.effective_classes.mean():.1f} ({one.pool_classes:.1f})",
            _mean_and_largest(one.wasserstein),
            _number(one.gini),
        )
    return table


def _mean_and_largest(values: np.ndarray | Undefined) -> str:
    return NOTHING if isinstance(values, Undefined) else f"{values.mean():.2f} ({values.max():.2f})"


def _number(value: float | Undefined) -> str:
    return NOTHING if isinstance(value, Undefined) else f"{value:.3g}"


def _print_reasons(console: Console, reasons: Mapping[str, Mapping[str, str]]) -> None:
    """A line for each reason why something is not there, with what, and of whom."""
    about: dict[tuple[str, str], list[str]] = {}
    for task, missing in reasons.items():
        for why in dict.fromkeys(missing.values()):
            found = [_NAMES[name] for name, reason in missing.items() if reason == why and name in _NAMES]
            about.setdefault((", ".join(found), why), []).append(task)
    for (names, why), tasks in about.items():
        whose = "every task" if len(tasks) == len(reasons) else ", ".join(tasks)
        console.print(f"{NOTHING} {whose}: no {names}: {why}", soft_wrap=True)


def _show_gradients(console: Console, experiment: Experiment) -> None:
    training = experiment.config.training
    found = gradient_dissimilarity(
        experiment.new_model(),
        experiment.data,
        batch_size=training.batch_size,
        seed=experiment.config.seed,
        device=experiment.config.engine.device,
    )
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="clients' gradients at the first model", title_justify="left"
    )
    for header in ("loss", "clients", "norm of the mean", "B of FedProx", "sigma of FedBuff"):
        table.add_column(header, justify="left" if header == "loss" else "right")
    for one in found:
        table.add_row(one.name, f"{one.clients:,}", _number(one.norm), _number(one.b), _number(one.sigma))
    console.print(table)
    _print_reasons(console, {one.name: _undefined(one) for one in found})


def _undefined(one: Dissimilarity) -> Mapping[str, str]:
    return {name: value.why for name, value in vars(one).items() if isinstance(value, Undefined)}


def _draw(shown: _Shown, out: Path) -> None:
    # Here, for matplotlib takes a second to import, and the other commands draw nothing.
    from fedmtl.plots import RunTables
    from fedmtl.plots.partition import draw
    from fedmtl.plots.style import save

    nothing = pa.table({})
    figure = draw(RunTables({}, nothing, nothing, nothing, shown.table, None))
    assert figure is not None
    save(figure, out)


def _write_table(shown: _Shown, out: Path) -> None:
    """A row for each client, in full precision; a cell is empty where there is nothing to say."""
    data = shown.data
    columns: dict[str, Sequence[object]] = {
        "client": range(data.clients),
        "name": data.client_names or [""] * data.clients,
        "examples": data.shards.sizes.tolist(),
        "held_out": data.validation.sizes.tolist(),
    }
    if data.shift is not None:
        columns[data.shift.kind] = data.shift.levels.tolist()
    for one in shown.statistics:
        for name in ("total_variation", "jensen_shannon", "effective_classes", "wasserstein"):
            if not isinstance(values := getattr(one, name), Undefined):
                cells: list[object] = [""] * data.clients
                for client, value in zip(one.clients.tolist(), values.tolist(), strict=True):
                    cells[client] = value
                columns[f"{one.task.name}/{name}"] = cells
    if shown.task:
        for label, counts in enumerate(shown.counts.T.tolist()):
            columns[f"{shown.task}={shown.classes[label] if label < len(shown.classes) else label}"] = counts
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


_WRITERS: Mapping[str, tuple[str, Callable[[_Shown, Path], None]]] = {
    ".png": ("heat map", _draw),
    ".csv": ("table", _write_table),
}
"""What can be written, by the ending of the file's name: what it is, and what writes it."""
