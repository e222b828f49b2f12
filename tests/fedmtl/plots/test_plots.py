"""Pictures of runs: that they are drawn, of the promised size, and show the run's numbers.

Long because every picture has promises of its own.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh

from fedmtl.errors import RunDirectoryError
from fedmtl.plots import (
    PLOTS,
    RunTables,
    client_types,
    kernels_over_time,
    make_plots,
    metrics,
    partition,
    staleness,
    task_weights,
    timeline,
)
from fedmtl.plots.style import Format, log_scale, new_figure
from fedmtl.plots.windows import windows
from fedmtl.tasks import Task

ALL = ["metrics", "staleness", "client-types", "task-weights", "ntk-spectra", "ntk-sizes", "ntk-by-speed"]
ALL += ["ntk-by-skew", "drift", "participation", "fedqs-plane", "buffers", "partition", "timeline"]
FORMATS: tuple[Format, ...] = ("png", "svg", "pdf")
ONE = [Task("label", "classification", 10)]
BARE = {"clients": 5, "versions": 12, "typed": False, "setting": False, "kernels": False}
"""A run that has the fewest pictures."""

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def drawn(make_run: MakeRun) -> tuple[Path, dict[str, list[Path]]]:
    """A small run, and its pictures in every format."""
    directory = make_run("twice", ONE, clients=5, versions=12, kernels=False)
    return directory, make_plots(directory, None, FORMATS)


@pytest.fixture(scope="module")
def tables(digits_run: Path) -> RunTables:
    return RunTables.read(digits_run)


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.slow
def test_a_full_run_gives_every_plot_1200_pixels_wide(make_run: MakeRun) -> None:
    tasks = [*ONE, Task("ink", "regression")]
    directory = make_run("drawn", tasks, clients=12, versions=40, convergence=True)
    settings = dict(mpl.rcParams)
    files = make_plots(directory)
    assert dict(mpl.rcParams) == settings
    assert list(files) == [plot.name for plot in PLOTS] == ALL
    assert sorted(path.name for path in (directory / "plots").iterdir()) == sorted(f"{name}.png" for name in ALL)
    assert {png_size(path)[0] for (path,) in files.values()} == {1200}


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(drawn: tuple[Path, dict[str, list[Path]]]) -> None:
    directory, files = drawn
    first = {path: path.read_bytes() for paths in files.values() for path in paths}
    assert {path.suffix for path in first} == {".png", ".svg", ".pdf"}
    again = [path for paths in make_plots(directory, None, FORMATS).values() for path in paths]
    assert {path: path.read_bytes() for path in again} == first


def test_what_a_run_does_not_have_is_not_drawn(make_run: MakeRun) -> None:
    bare = make_run("bare", ONE, **BARE)
    assert list(make_plots(bare)) == ["metrics", "staleness", "timeline"]


def test_a_run_that_made_no_version_can_be_drawn(make_run: MakeRun) -> None:
    nothing = make_run("nothing", ONE, clients=5, versions=0, kernels=False, convergence=True)
    assert list(make_plots(nothing)) == ["metrics", "partition"]


def test_a_directory_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no finished run"):
        make_plots(tmp_path)


def test_metrics_show_every_evaluation_of_every_task_and_group(tables: RunTables) -> None:
    figure = metrics.draw(tables)
    assert figure is not None
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["digit", "parity", "ink", "asymmetry"]
    test = figure.axes[2].get_lines()[0]
    times, values = tables.curve("ink", "mse", "test", "time")
    assert len(values) == 31
    np.testing.assert_array_equal(test.get_xdata(), times)
    np.testing.assert_array_equal(test.get_ydata(), values)
    assert [len(panel.get_lines()) for panel in figure.axes] == [4, 4, 4, 4]


def test_metrics_have_an_axis_of_virtual_time_and_one_of_versions(tables: RunTables) -> None:
    figure = metrics.draw(tables)
    assert figure is not None
    figure.draw_without_rendering()
    assert [panel.get_xlabel() for panel in figure.axes] == ["", "", "virtual time (s)", "virtual time (s)"]
    above = [panel.child_axes for panel in figure.axes]
    assert [len(axes) for axes in above] == [1, 1, 0, 0]
    made = {0: 0.0, **{row["version"]: row["time"] for row in tables.aggregations.to_pylist()}}
    for (axis,) in above[:2]:
        assert axis.get_xlabel() == "version of the global model"
        labels = [int(label.get_text()) for label in axis.get_xticklabels()]
        assert len(labels) >= 4
        assert labels == sorted(set(labels))
        assert axis.get_xticks() == pytest.approx([made[version] for version in labels])


def test_times_of_real_clients_are_not_called_virtual(tables: RunTables) -> None:
    real = dataclasses.replace(tables, summary={**tables.summary, "connections": {"lost": 0, "joined": 0}})
    for draw in (metrics.draw, timeline.draw, task_weights.draw):
        for run, virtual in ((tables, True), (real, False)):
            figure = draw(run)
            assert figure is not None
            axes = [label for panel in figure.axes if "time" in (label := panel.get_xlabel())]
            assert axes
            assert all(("virtual time" in label) is virtual for label in axes)


def test_evaluations_are_points_where_they_are_few(make_run: MakeRun, tables: RunTables) -> None:
    for versions, marker in ((0, "o"), (30, "o")):
        figure = metrics.draw(RunTables.read(make_run(f"few-{versions}", versions=versions, kernels=False)))
        assert figure is not None
        assert {line.get_marker() for panel in figure.axes for line in panel.get_lines()} == {marker}
    figure = metrics.draw(tables)  # 31 evaluations
    assert figure is not None
    assert {line.get_marker() for panel in figure.axes for line in panel.get_lines()} == {"None"}


def test_a_short_run_shows_weights_types_and_kernels_too(make_run: MakeRun) -> None:
    run = RunTables.read(make_run("one-window", versions=2))
    weights, types, sizes = task_weights.draw(run), client_types.draw(run), kernels_over_time.draw_sizes(run)
    assert weights is not None
    assert sizes is not None
    for figure in (weights, sizes):
        assert {line.get_marker() for line in figure.axes[0].get_lines()} == {"o"}
    assert types is not None
    left, right = types.axes[0].get_xlim()
    areas = [area.get_datalim(types.axes[0].transData).width for area in types.axes[0].collections]
    assert min(areas) > 0.9 * (right - left) > 0
    many = task_weights.draw(
        RunTables.read(make_run("one-row", [Task(f"attribute-{i}", "binary") for i in range(12)], versions=2))
    )
    assert many is not None
    many.draw_without_rendering()


@pytest.mark.parametrize("formats", [("svg",), ("pdf", "png"), FORMATS])
def test_pictures_are_made_in_the_formats_that_are_asked_for_and_no_others(
    make_run: MakeRun, drawn: tuple[Path, dict[str, list[Path]]], formats: tuple[Format, ...]
) -> None:
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    directory, files = drawn
    if formats != FORMATS:
        directory = make_run("formats", ONE, **BARE)
        files = make_plots(directory, None, formats)
    assert {path.name for path in (directory / "plots").iterdir()} == {f"{n}.{kind}" for n in files for kind in formats}
    for paths in files.values():
        assert all(path.read_bytes().startswith(starts[path.suffix[1:]]) for path in paths)


def test_no_formats_mean_no_pictures(make_run: MakeRun) -> None:
    directory = make_run("plain", clients=5, versions=3, kernels=False)
    assert make_plots(directory, None, ()) == {}
    assert not (directory / "plots").exists()


def test_classes_and_clients_are_called_by_their_names(tables: RunTables) -> None:
    assert tables.partition is not None
    classes, clients = [f"species {k}" for k in range(9)], [f"writer-{k:04}" for k in range(100)]
    named = {"task": "kind", "classes": json.dumps(classes), "clients": json.dumps(clients)}
    run = dataclasses.replace(tables, partition=tables.partition.replace_schema_metadata(named))
    heat, rows = partition.draw(run), timeline.draw(run)
    assert heat is not None
    assert rows is not None
    cells = heat.axes[1]
    assert [label.get_text() for label in cells.get_yticklabels()] == [*classes, "9"]  # the tenth has no name
    assert [label.get_text() for label in cells.get_xticklabels()] == clients[::5]
    assert {label.get_text() for label in rows.axes[0].get_yticklabels()} <= set(clients)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cost [$]", "$\\frac{$", "_modules", "a\nb", "x" * 300])
def test_any_name_of_a_task_can_be_drawn(make_run: MakeRun, name: str) -> None:
    tasks = [Task("label", "classification", 10, classes=(name,)), Task(name, "regression")]
    run = RunTables.read(make_run("names", tasks, versions=6, kernels=False))
    figures = [draw(run) for draw in (metrics.draw, task_weights.draw, partition.draw)]
    for figure in figures:
        assert figure is not None
        figure.draw_without_rendering()
    weights = figures[1]
    assert weights is not None
    assert len(weights.legends[0].get_texts()) == 2


def test_a_run_that_diverged_goes_beyond_the_axes_of_the_others(tables: RunTables) -> None:
    rows = [
        row | {"value": row["value"] * (1e30 if row["version"] > 30 else 1)} for row in tables.evaluations.to_pylist()
    ]
    lost = dataclasses.replace(
        tables,
        evaluations=tables.evaluations.from_pylist(rows, schema=tables.evaluations.schema),
        summary={**tables.summary, "diverged": {"version": 39, "task": "ink", "why": "it is long"}},
    )
    figure = metrics.draw_runs({"lost": lost, "kept": tables}, "version")
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lost (diverged)", "kept"]
    for panel, task in zip(figure.axes, tables.tasks, strict=True):
        values = tables.curve(task["name"], task["metric"], "test", "version")[1]
        low, high = panel.get_ylim()
        assert low < values.min() < values.max() < high < 2 * values.max()


def test_the_staleness_histogram_counts_every_applied_update(tables: RunTables) -> None:
    figure = staleness.draw(tables)
    assert figure is not None
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == tables.applied.num_rows == 900


def test_the_partition_shows_every_client_of_a_hundred(tables: RunTables) -> None:
    figure = partition.draw(tables)
    assert figure is not None
    assert tables.partition is not None
    bars, cells, _ = figure.axes
    cell_values = cells.images[0].get_array()
    assert cell_values is not None
    assert cell_values.shape == (10, 100)
    assert cell_values.sum() == sum(bar.get_height() for bar in bars.patches)
    assert cell_values.sum() == sum(tables.partition["examples"].to_pylist())


def test_very_many_clients_are_sampled_and_the_title_says_so(make_run: MakeRun) -> None:
    run = RunTables.read(make_run("crowd", clients=500, versions=60))
    shown = partition.draw(run)
    assert shown is not None
    assert shown.axes[0].get_title(loc="left") == "120 of 500 clients, evenly chosen"
    rows = timeline.draw(run)
    assert rows is not None
    assert len(rows.axes[0].get_yticks()) == 40
    assert "40 of" in rows.axes[0].get_title(loc="left")


def test_the_timeline_lists_clients_from_fast_to_slow_with_a_bar_per_job(tables: RunTables) -> None:
    figure = timeline.draw(tables)
    assert figure is not None
    seconds = tables.seconds()
    assert seconds is not None
    clients = [int(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    assert clients == sorted(clients, key=lambda client: seconds[client])
    jobs = sum(client in clients for client in tables.updates["client"].to_pylist())
    bars = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    assert sum(len(bar.get_paths()) for bar in bars) == jobs


def test_few_task_weights_are_lines_and_many_a_heat_map(tables: RunTables, make_run: MakeRun) -> None:
    few = task_weights.draw(tables)
    assert few is not None
    assert [line.get_label() for line in few.axes[0].get_lines()] == ["digit", "parity", "ink", "asymmetry"]
    many = task_weights.draw(
        RunTables.read(make_run("attributes", [Task(f"attribute-{i}", "binary") for i in range(12)], versions=20))
    )
    assert many is not None
    assert [type(shape) for shape in many.axes[0].collections] == [QuadMesh]


def test_task_weights_that_are_magnitudes_apart_are_drawn_on_a_logarithmic_scale(tables: RunTables) -> None:
    wide = tables.updates.to_pylist()
    for row in wide:
        row["task_weights"] = [400.0 * row["task_weights"][0], 50.0, 1.0, 8.0]
    updates = tables.updates.from_pylist(wide, schema=tables.updates.schema)
    scales = [
        figure.axes[0].get_yscale()
        for run in (tables, dataclasses.replace(tables, updates=updates))
        if (figure := task_weights.draw(run)) is not None
    ]
    assert scales == ["linear", "log"]


def test_windows_hold_every_time_and_are_fewer_when_there_is_little_to_show() -> None:
    times = np.random.default_rng(1).uniform(5, 9, 1000)
    index, middles = windows(times)
    assert len(middles) == 33
    assert np.abs(times - middles[index]).max() <= (times.max() - times.min()) / 66 * 1.001  # rounding of the edges
    assert len(windows(np.tile(times, 3))[1]) == 60
    assert len(windows(times[:1])[1]) == 1


@pytest.mark.parametrize("decades", [1, 3, 4, 5, 12, 30, 200])
def test_a_logarithmic_axis_has_a_few_ticks_however_long_it_is(decades: int) -> None:
    figure, (panel,) = new_figure(3.0)
    log_scale(panel)
    panel.set_ylim(0.9, 1.1 * 10.0**decades)
    figure.draw_without_rendering()
    ticks = [tick for tick in panel.get_yticks() if 0.9 <= tick <= 1.1 * 10.0**decades]
    assert 3 <= len(ticks) <= 13
    assert (2.0 in ticks) == (decades < 4)
