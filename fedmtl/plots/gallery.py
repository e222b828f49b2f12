"""All plots of a run, in the order of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fedmtl.plots import (
    buffers,
    client_types,
    drift,
    fedqs_plane,
    kernels_by_group,
    kernels_over_time,
    metrics,
    participation,
    partition,
    staleness,
    task_weights,
    timeline,
)
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import Format, save_as


@dataclass(frozen=True)
class Plot:
    """One picture.

    Attributes
    ----------
    name
        Of its file, without the ending.
    title, caption
        What it shows, and how to read it, in one line.
    draw
        Draws it; None where the run has nothing to show.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[RunTables], Figure | None]


_GROUPS = (
    "Left, eigenvalues of each task's kernel of losses at the examples of {}, divided by the number of these examples; "
    "right, the mean loss at the same examples. A small step on a group's examples alone, at rate eta, lowers their "
    "loss by at most eta times the largest."
)

PLOTS = (
    Plot(
        "metrics",
        "Metrics",
        "Every task's metric as time went by, on the server's test set and on the examples that clients hold out; the "
        "arrow points to the better side. The axis on top has the versions of the global model, where they were made.",
        metrics.draw,
    ),
    Plot(
        "staleness",
        "Staleness",
        "How many versions the server had moved on since the version that an update started from.",
        staleness.draw,
    ),
    Plot(
        "client-types",
        "Client types",
        "As what the clients that delivered an update saw themselves at the time.",
        client_types.draw,
    ),
    Plot(
        "task-weights",
        "Task weights",
        "Mean weight that the clients' balancer gave each task; bands hold the middle half of the updates.",
        task_weights.draw,
    ),
    Plot(
        "ntk-spectra",
        "Spectra of the tasks' tangent kernels",
        "The largest eigenvalues of each task's kernel of losses (gradients of the shared parameters at a fixed sample "
        "of examples); a task whose eigenvalues are larger learns faster.",
        kernels_over_time.draw_spectra,
    ),
    Plot(
        "ntk-sizes",
        "Sizes and directions of the tasks' tangent kernels",
        "Trace per example (the mean squared norm of an example's gradient), effective rank (tr K)^2 / tr K^2, and the "
        "mean cosine between a task's mean gradient and the others': below 0 the tasks pull apart.",
        kernels_over_time.draw_sizes,
    ),
    Plot(
        "ntk-by-speed",
        "Tangent kernels of fast and of slow clients",
        _GROUPS.format("the faster and of the slower half of the clients"),
        kernels_by_group.draw_by_speed,
    ),
    Plot(
        "ntk-by-skew",
        "Tangent kernels of unbiased and of biased clients",
        _GROUPS.format(
            "the half of the clients whose mixture of classes is nearer to that of all, and of the other half"
        ),
        kernels_by_group.draw_by_skew,
    ),
    Plot(
        "drift",
        "Drift and dissimilarity",
        "The metrics on the test set, and below them, version by version, how far the clients' models went from what "
        "they were sent, how much longer their updates are than the mean of these (1: all alike), and the mean cosine "
        "between the updates of different clients (0: at right angles).",
        drift.draw,
    ),
    Plot(
        "participation",
        "Participation and staleness by speed",
        "Each point is a client: how large a share of the applied updates is its own, what its updates weigh beside "
        "the mean of their server steps, and how many versions behind they are on average.",
        participation.draw,
    ),
    Plot(
        "fedqs-plane",
        "FedQS's plane",
        "Each client's latest job at four moments of the run: the share of all updates that is its own, and how far "
        "its direction is from the server's, both over their means when the job was ordered. The grey lines divide the "
        "types: right of 1 is fast, above 1 is biased.",
        fedqs_plane.draw,
    ),
    Plot(
        "buffers",
        "Groups and buffers",
        "Who trained for which of some server steps. A bar is a job, and the thin one behind it the time that its "
        "update waited at the server; both have the colour of the version that the update went into, which was made at "
        "the line of that colour. Below, how many updates waited.",
        buffers.draw,
    ),
    Plot(
        "partition",
        "Partition",
        "How many training examples of each class each client has.",
        partition.draw,
    ),
    Plot(
        "timeline",
        "Devices",
        "Each bar is a job, from the sending of the order to the arrival of the update; a long bar is a slow device.",
        timeline.draw,
    ),
)


def make_plots(
    directory: Path, summary: Mapping[str, Any] | None = None, formats: Sequence[Format] = ("png",)
) -> dict[str, list[Path]]:
    """Draw every plot that the run has something to show in, into ``plots/``; the files by the names of the plots.

    Parameters
    ----------
    directory
        Of a finished run.
    summary
        If it is not written yet.
    formats
        Of the files; if there are none, nothing is drawn.

    Raises
    ------
    RunDirectoryError
        If the directory holds no finished run, or a plot cannot be written.
    """
    run = RunTables.read(directory, summary)
    drawn = ((plot.name, plot.draw(run)) for plot in (PLOTS if formats else ()))
    return {name: save_as(figure, directory / "plots" / name, formats) for name, figure in drawn if figure is not None}
