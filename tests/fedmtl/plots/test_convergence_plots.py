"""Pictures of convergence: what they show is what the run's tables say, worked out by other means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from matplotlib.collections import PolyCollection

from fedmtl.ntk.groups import BY_SPEED, GroupRow
from fedmtl.plots import RunTables, buffers, drift, fedqs_plane, kernels_by_group, participation
from fedmtl.plots.style import TYPE_LOOKS
from fedmtl.records.schemas import NTK_GROUPS
from fedmtl.tasks import Task
from simulations import Experiment, run

MakeRun = Callable[..., Path]
SMALL = ["data.clients=12", "strategy.buffer_size=3", "stop.versions=25", "records.convergence=true"]
ONE_TASK = [Task("label", "classification", 10)]


@pytest.fixture(scope="module")
def fedqs(tmp_path_factory: pytest.TempPathFactory) -> RunTables:
    directory = tmp_path_factory.mktemp("fedqs") / "run"
    run(Experiment.load(None, SMALL), directory, pictures=False)
    return RunTables.read(directory)


@pytest.fixture(scope="module")
def many(make_run: MakeRun) -> RunTables:
    """A made-up run of 300 clients."""
    return RunTables.read(make_run("many", ONE_TASK, clients=300, versions=60, kernels=False, convergence=True))


def changed(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, from_pandas=True))


def test_every_job_lies_in_the_part_of_the_plane_that_its_type_names(fedqs: RunTables) -> None:
    jobs = fedqs_plane.plane(fedqs)
    assert jobs.typed.sum() == pc.sum(pc.not_equal(fedqs.updates["client_type"], "")).as_py() > 30
    fast, biased = jobs.share > jobs.mean_share, jobs.similarity > jobs.mean_similarity
    parts = {(True, True): "FBC", (True, False): "FUC", (False, False): "SUC", (False, True): "SBC"}
    named = [parts[f, b] for f, b in zip(fast[jobs.typed].tolist(), biased[jobs.typed].tolist(), strict=True)]
    assert named == [name.partition("-")[0] for name in jobs.type_name[jobs.typed]]


def test_a_mean_share_over_all_clients_counts_those_without_an_update_too(fedqs: RunTables) -> None:
    everyone = dataclasses.replace(fedqs, configuration={"strategy": {"policy": {"name": "fedqs", "fbar": "all"}}})
    means = fedqs_plane.plane(everyone).mean_share
    assert set(means[np.isfinite(means)].tolist()) == {1 / 12}


def test_the_plane_shows_each_clients_latest_job_at_four_moments(fedqs: RunTables) -> None:
    figure = fedqs_plane.draw(fedqs)
    assert figure is not None
    last = {row["client"]: row for row in fedqs.updates.sort_by("arrived_at").to_pylist() if row["similarity"]}
    of_type = {name: sum(row["client_type"] == name for row in last.values()) for name in TYPE_LOOKS}
    lines = figure.axes[3].get_lines()[: len(TYPE_LOOKS)]
    assert dict(zip(TYPE_LOOKS, (len(np.asarray(line.get_xdata())) for line in lines), strict=True)) == of_type
    assert "version 25: 12 clients" in figure.axes[3].get_title("left")
    assert len({line.get_marker() for line in lines}) == len(TYPE_LOOKS)  # not by colour alone


def test_bars_are_the_updates_of_some_steps_and_end_where_these_were_made(fedqs: RunTables) -> None:
    figure = buffers.draw(fedqs)
    assert figure is not None
    panel, below = figure.axes
    assert panel.get_title("left").startswith("6 steps, versions 10 to 15 of 25; all their clients")
    bars = [shape for shape in panel.collections if isinstance(shape, PolyCollection)]
    steps = range(10, 16)
    # Jobs and waits in turn, punctual and late; first what is grey.
    counts = [len(jobs.get_paths()) + len(late.get_paths()) for jobs, late in zip(bars[4::4], bars[6::4], strict=True)]
    assert counts == [3] * 6
    made = dict(zip(*(fedqs.aggregations[name].to_pylist() for name in ("version", "time")), strict=True))
    for step, waits in zip(steps, bars[5::4], strict=True):
        assert {path.get_extents().x1 for path in waits.get_paths()} == {made[step]}
    waiting = np.asarray(below.get_lines()[0].get_ydata())
    assert waiting.min() == 0
    assert waiting.max() == 2  # the third makes the step


def test_steps_of_single_updates_have_no_buffers_to_show(fedqs: RunTables) -> None:
    ones = np.ones(fedqs.aggregations.num_rows, dtype=np.int64)
    single = dataclasses.replace(fedqs, aggregations=changed(fedqs.aggregations, "size", ones))
    assert buffers.draw(single) is None


def test_drift_and_dissimilarity_have_every_version_and_a_gap_where_they_have_no_meaning(fedqs: RunTables) -> None:
    values = fedqs.aggregations["dissimilarity"].to_numpy().copy()
    values[4] = np.nan
    figure = drift.draw(dataclasses.replace(fedqs, aggregations=changed(fedqs.aggregations, "dissimilarity", values)))
    assert figure is not None
    metrics, drifts, alike = figure.axes[0], figure.axes[3], figure.axes[4]
    assert [line.get_label() for line in metrics.get_lines()] == ["digit", "parity"]
    np.testing.assert_array_equal(drifts.get_lines()[0].get_ydata(), fedqs.aggregations["drift"].to_numpy())
    np.testing.assert_array_equal(alike.get_lines()[1].get_ydata(), values)
    assert figure.axes[-1].get_xlabel() == "virtual time (s)"


def test_a_measure_that_no_version_has_has_no_panel(many: RunTables) -> None:
    figure = drift.draw(many)  # no cosines between clients
    assert figure is not None
    assert [panel.get_ylabel().split("\n")[0] for panel in figure.axes] == [
        "accuracy ↑",
        "clients' drift /",
        "dissimilarity",
    ]


def test_shares_weights_and_staleness_are_those_of_each_client(fedqs: RunTables) -> None:
    figure = participation.draw(fedqs)
    assert figure is not None
    seconds, applied = fedqs.seconds(), fedqs.applied.to_pylist()
    assert seconds is not None
    shown = [
        dict(zip(*np.concatenate([line.get_xydata() for line in panel.get_lines()[:2]]).T, strict=True))
        for panel in figure.axes
    ]
    sums = {v: sum(r["weight"] for r in applied if r["applied_version"] == v) for v in range(1, 26)}
    compared = 0
    for client in range(12):
        mine = [row for row in applied if row["client"] == client]
        same = [row for row in applied if seconds[row["client"]] == seconds[client]]
        if not mine or len(same) > len(mine):
            continue  # two devices of one speed lie on one place
        compared += 1
        assert shown[0][seconds[client]] == pytest.approx(100 * len(mine) / len(applied))
        weights = [3 * row["weight"] / sums[row["applied_version"]] for row in mine]
        assert shown[1][seconds[client]] == pytest.approx(np.mean(weights))
        assert shown[2][seconds[client]] == pytest.approx(np.mean([row["staleness"] for row in mine]))
    assert compared >= 6


def test_where_speeds_are_unknown_the_mean_job_stands_for_them(fedqs: RunTables) -> None:
    figure = participation.draw(dataclasses.replace(fedqs, devices=None))
    assert figure is not None
    assert {panel.get_xlabel() for panel in figure.axes} == {"mean seconds of a job"}


def test_equal_devices_have_no_halves_and_who_was_never_heard_of_counts(fedqs: RunTables) -> None:
    assert fedqs.devices is not None
    one = pa.array([1.0] * fedqs.devices.num_rows)
    place = fedqs.devices.column_names.index("seconds")
    equal = fedqs.devices.set_column(place, "seconds", one)
    mine = fedqs.updates.filter(pc.less(fedqs.updates["client"], 5))
    figure = participation.draw(dataclasses.replace(fedqs, devices=equal, updates=mine))
    assert figure is not None
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "clients, all as fast"
    assert not [label for label in labels if "half" in label]
    assert f"{len(one) - 5} clients had no update" in figure.get_supxlabel()
    (alike,) = {line.get_ydata()[0] for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"}
    assert alike == pytest.approx(100 / len(one))


def test_of_very_many_clients_samples_are_shown_which_say_so(many: RunTables, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (participation, fedqs_plane):
        monkeypatch.setattr(module, "_CLIENTS", 50)
    figures = [module.draw(many) for module in (participation, fedqs_plane, buffers)]
    texts = [
        " ".join([figure.get_supxlabel(), *(panel.get_title("left") for panel in figure.axes)])
        for figure in figures
        if figure is not None
    ]
    assert "50 of 300 clients" in texts[0]
    assert "50 of " in texts[1]
    assert "evenly chosen by speed" in texts[2]


def test_a_run_that_recorded_no_convergence_draws_none_of_it(fedqs: RunTables) -> None:
    plain = fedqs.aggregations.select(fedqs.aggregations.column_names[:6])
    without = dataclasses.replace(fedqs, aggregations=plain)
    draws = (fedqs_plane.draw, buffers.draw, drift.draw, participation.draw, kernels_by_group.draw_by_speed)
    assert [draw(without) for draw in draws] == [None] * 5


def test_kernels_of_groups_are_eigenvalues_over_examples_beside_losses() -> None:
    rows = [
        GroupRow(10 * t, 2.5 * t, group, f"task-{n}", size, 1.0 / (1 + t), 6.0, 4.0, 2.0, [4.0, 1.0, 0.5, 0.25, 0.0])
        for t in range(3)
        for group, size in zip(BY_SPEED, (8, 4), strict=True)
        for n in range(20)
    ]
    nothing = pa.table({})
    summary = {"tasks": [{"name": f"task-{n}"} for n in range(20)]}
    groups = pa.table(list(zip(*rows, strict=True)), schema=NTK_GROUPS)
    tables = RunTables(summary, nothing, nothing, nothing, None, None, None, groups)
    figure = kernels_by_group.draw_by_speed(tables)
    assert figure is not None
    assert figure.get_supxlabel() == "6 of 20 tasks, evenly chosen"
    left, right = figure.axes[:2]
    first, fourth, sixteenth = (np.asarray(line.get_ydata()) for line in left.get_lines()[:3])
    assert (first.tolist(), fourth.tolist()) == ([0.5] * 3, [0.03125] * 3)
    assert np.isnan(sixteenth).all()
    assert left.get_lines()[3].get_ydata()[0] == 1.0  # of four examples
    assert [np.asarray(line.get_xdata()).tolist() for line in right.get_lines()] == [[0.0, 2.5, 5.0]] * 2
    assert kernels_by_group.draw_by_skew(tables) is None
