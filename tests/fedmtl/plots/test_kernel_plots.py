"""Pictures of kernels: what they show, and that odd data do not stop them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedmtl.plots import kernels_over_time
from fedmtl.plots.kernels import Decay, DirectionDecay, draw_alignment, draw_decay, draw_directions, draw_spectra
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import save
from fedmtl.records.schemas import NTK

STEPS = np.arange(11.0)


def run_with_kernels(tasks: int, versions: int = 4, scale: float = 1.0) -> RunTables:
    names = [f"task-{number}" for number in range(tasks)]
    lists = ([scale * 4 / 2**i for i in range(8)], [0.5] * tasks, [0.1] * tasks)
    rank = 2.0 if scale else None
    rows = [
        (v, 10.0 * v, None, "losses", name, 8, scale * 8, 0.0, scale * 4, None, rank, *lists)
        for v in range(versions)
        for name in names
    ]
    nothing = pa.table({})
    summary = {"tasks": [{"name": name} for name in names]}
    table = pa.table(list(zip(*rows, strict=True)), schema=NTK)
    return RunTables(summary, nothing, nothing, nothing, None, None, table)


@pytest.mark.parametrize("tasks", [1, 4, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_kernels_over_time_of_any_number_of_tasks_zero_or_not(tmp_path: Path, tasks: int, scale: float) -> None:
    run = run_with_kernels(tasks, scale=scale)
    spectra, sizes = kernels_over_time.draw_spectra(run), kernels_over_time.draw_sizes(run)
    assert spectra is not None
    assert sizes is not None
    assert [panel.get_title("left") for panel in spectra.axes[:tasks]] == [task["name"] for task in run.tasks]
    assert all(len(panel.get_lines()) == 4 for panel in spectra.axes[:tasks])  # eigenvalues 1, 2, 4 and 8
    assert len(sizes.axes) == (3 if tasks > 1 else 2)
    for name, figure in {"spectra": spectra, "sizes": sizes}.items():
        assert save(figure, tmp_path / f"{name}.png").stat().st_size > 0


def test_a_run_that_measured_nothing_has_no_pictures_of_kernels() -> None:
    run = run_with_kernels(2)
    without = RunTables(run.summary, run.updates, run.aggregations, run.evaluations, None, None)
    assert kernels_over_time.draw_spectra(without) is None
    assert kernels_over_time.draw_sizes(without) is None


def test_spectra_leave_out_zeros_and_say_where_all_are(tmp_path: Path) -> None:
    figure = draw_spectra({"some": {"a": [4.0, 2.0, 0.0], "b": [1.0]}, "none": {"a": [0.0], "b": [0.0]}})
    some, none = figure.axes
    assert [len(np.asarray(line.get_xdata())) for line in some.get_lines()] == [2, 1]
    assert [text.get_text() for text in none.texts] == ["all zero"]
    save(figure, tmp_path / "spectra.png")


def test_small_alignments_are_written_out_and_unknown_ones_are_not(tmp_path: Path) -> None:
    matrix = np.array([[1.0, np.nan], [np.nan, 1.0]])
    figure = draw_alignment(["a", "b"], "task", {"alignment": matrix, "cosine": -matrix}, (False, True))
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "1.00"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["-1.00", "-1.00"]
    large = draw_alignment([str(i) for i in range(60)], "client", {"all": np.eye(60)}, (False,))
    assert len(large.axes[0].get_xticks()) <= 24
    assert not large.axes[0].texts
    save(figure, tmp_path / "small.png")
    save(large, tmp_path / "large.png")


def test_a_prediction_that_explodes_does_not_hide_the_measurement(tmp_path: Path) -> None:
    wild = Decay("all clients", 10.0**STEPS, np.exp(-STEPS))
    lost = Decay("lost", np.full(11, np.nan), np.where(STEPS > 3, np.inf, 1.0))
    figure = draw_decay({"one": [wild], "two": [wild, lost]})
    assert figure.axes[0].get_ylim()[1] < 2
    save(figure, tmp_path / "decay.png")
    lines = [DirectionDecay(f"eigenvector {r}", np.exp(-STEPS / r), np.exp(-STEPS / r)) for r in (1, 2, 4)]
    directions = draw_directions({"one": lines})
    assert len(directions.axes[0].get_lines()) == 6
    save(directions, tmp_path / "directions.png")
