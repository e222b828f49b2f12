"""Overall tables and pictures of studies: what they say, also of unfinished ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from fedmtl.plots.style import line_look, log_ticks, new_figure
from simulations.studies.overview import Overview, overview_lines
from simulations.studies.plots import draw
from simulations.studies.plots.curves import _draw_panel, _finish_panel, _looks, common_times
from simulations.studies.plots.dots import _by_mean, final_pages, target_pages
from simulations.studies.plots.ranks import rank_maps
from simulations.studies.study import Study

AXES: dict[str, dict[str, dict[str, object]]] = {
    "strategy": {"A": {}, "B": {}, "C": {}},
    "partition": {"IID": {}, "skewed": {}},
    "speed": {"equal": {}, "1:50": {}},
}
STUDY = Study("made", (0, 1), {}, AXES, {"digit": 0.5})


def row(
    label: str, partition: str, speed: str, seed: int, task: str, final: float, **others: float
) -> dict[str, object]:
    place = {"strategy": label, "partition": partition, "speed": speed, "seed": seed}
    metric = "accuracy" if task == "digit" else "mse"
    known = {"best": final, "same_time": 1 - final, "worst_clients": final, "drops_5": 2, "drops_10": 1}
    never = {"time_to_target": math.nan, "stable_at": math.nan, "diverged_at": -1}
    return place | {"task": task, "metric": metric, "final": final} | known | never | others


def whole() -> list[dict[str, object]]:
    """A is best everywhere, B second, C last; only A reaches its target."""
    return [
        row(
            label,
            partition,
            speed,
            seed,
            task,
            final,
            delta_m=10.0 * rank,
            time_to_target=9.0 if rank == 1 else math.nan,
        )
        for rank, label in enumerate("ABC", start=1)
        for partition in AXES["partition"]
        for speed in AXES["speed"]
        for seed in STUDY.seeds
        for task, final in (("digit", 1 - 0.2 * rank), ("ink", 0.5 * rank))
    ]


def test_the_overall_table_ranks_over_tasks_places_and_seeds() -> None:
    lines = overview_lines(STUDY, pa.Table.from_pylist(whole()))
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    found = [dict(zip(table[0], cells, strict=True)) for cells in table[1:]]
    assert [(entry[""], entry["mean rank"], entry["best"]) for entry in found] == [
        ("A", "**1.00**", "16 of 16"),
        ("B", "2.00", "0 of 16"),
        ("C", "3.00", "0 of 16"),
    ]
    # B and C never got there and share ranks 2 and 3.
    assert [entry["rank, time to target"] for entry in found] == ["1.0", "2.5", "2.5"]
    assert [entry["target reached"] for entry in found] == ["8 of 8", "0 of 8", "0 of 8"]
    assert [entry["rank, same time"] for entry in found] == ["3.0", "2.0", "1.0"]
    assert [entry["drops > 5"] for entry in found] == ["2.0"] * 3
    assert not any("issing" in line for line in lines)


def test_ranks_among_those_that_are_there_are_stretched_to_the_full_field() -> None:
    rows = [r for r in whole() if r["strategy"] != "B"]
    overview = Overview(STUDY, pa.Table.from_pylist(rows))
    ranks = overview.mean_rank(["digit", "ink"], overview.places)
    assert (ranks["A"], ranks["C"]) == (1.0, 3.0)
    assert math.isnan(ranks["B"])


def test_what_is_missing_is_said() -> None:
    rows = [r for r in whole() if r["strategy"] != "B" and not (r["strategy"] == "C" and r["seed"] == 1)]
    lines = overview_lines(STUDY, pa.Table.from_pylist(rows))
    assert "- B: everywhere, 2 of 2 seeds" in lines
    assert "- C: everywhere, 1 of 2 seeds" in lines
    assert any(line.startswith("12 of 24 runs") for line in lines)


def test_a_study_without_a_finished_run_says_so_and_draws_nothing(tmp_path: Path) -> None:
    results = pa.Table.from_pylist(whole()).slice(0, 0)
    assert overview_lines(STUDY, results)[0] == "No run of this study has finished."
    assert draw(STUDY, results, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_pictures_are_drawn_with_missing_and_diverged_runs(tmp_path: Path, share: float) -> None:
    rows = whole()
    rows[3]["final"], rows[5]["final"] = math.nan, math.inf
    pictures = draw(STUDY, pa.Table.from_pylist(rows[: int(share * len(rows))]), tmp_path)
    names = {picture.path.stem for picture in pictures}
    assert {"ranks", "ranks-same-time", "ranks-by-task", "final--IID", "time-to-target--IID"} <= names
    assert all(picture.path.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def with_diverged() -> list[dict[str, object]]:
    """The same, but that one of C's seeds diverged where data are skewed and speeds equal."""
    names = ("final", "same_time", "worst_clients", "time_to_target", "stable_at", "delta_m")
    rows = whole()
    for r in rows:
        if (r["strategy"], r["partition"], r["speed"], r["seed"]) == ("C", "skewed", "equal", 1):
            r |= dict.fromkeys(names, math.nan) | {"diverged_at": 12}
    return rows


def test_a_diverged_run_is_counted_in_the_overall_table_and_marked_in_every_picture() -> None:
    overview = Overview(STUDY, pa.Table.from_pylist(with_diverged()))
    assert {label: sum(overview.diverged(p, label) for p in overview.places) for label in "ABC"} == {
        "A": 0,
        "B": 0,
        "C": 1,
    }
    header, _, *rows = [line for line in overview_lines(STUDY, overview.results) if line.startswith("|")]
    column = [cell.strip() for cell in header.split("|")].index("diverged")
    assert [line.split("|")[column].strip() for line in rows] == ["0", "0", "1"]
    assert "diverged |" not in "".join(overview_lines(STUDY, pa.Table.from_pylist(whole())))

    def texts(figure: Figure) -> list[str]:
        return [text.get_text() for panel in figure.axes for text in panel.texts]

    ((_, ranks),) = rank_maps(overview)
    assert [text for text in texts(ranks) if text.endswith("*")] == ["3.0*", "3.0*"]  # in its place, and overall
    finals = [text for name, figure in final_pages(overview) for text in texts(figure)]
    assert finals == ["diverged (1 of 2)"] * 3  # two tasks and delta-m
    times = [text for _, figure in target_pages(overview) for text in texts(figure)]
    assert "diverged (1), never (1 of 2)" in times


def test_a_label_that_diverged_somewhere_is_not_on_top_for_what_is_left_of_it() -> None:
    rows = whole()
    for r in rows:
        if r["strategy"] == "A" and r["partition"] == "skewed":
            r |= {"final": math.nan, "diverged_at": 3}
    overview = Overview(STUDY, pa.Table.from_pylist(rows))
    assert _by_mean(overview, "digit") == ["B", "C", "A"]


def test_delta_m_is_ranked_as_the_lower_the_better() -> None:
    overview = Overview(STUDY, pa.Table.from_pylist(whole()))
    assert list(overview.measures) == ["digit", "ink", "delta-m"]
    assert list(overview.mean_rank(["delta-m"], overview.places).values()) == [1.0, 2.0, 3.0]


def test_curves_meet_at_all_times_that_the_runs_have_in_common() -> None:
    first = np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 4.0])
    second = np.array([0.0, 1.0, 3.0]), np.array([1.0, 1.0, 5.0])
    found = common_times([first, second])
    assert found is not None
    times, values = found
    assert times.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert values.tolist() == [[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 3.0, 5.0]]
    assert common_times([first, (np.array([9.0]), np.array([1.0]))]) is None


@pytest.mark.slow
def test_places_may_have_tasks_of_their_own_and_targets_may_be_missing(tmp_path: Path) -> None:
    rows = [row for row in whole() if (row["task"] == "ink") == (row["partition"] == "IID")]
    study = replace(STUDY, targets={})
    results = pa.Table.from_pylist(rows)
    overview = Overview(study, results)
    assert [list(overview.tasks_at(place)) for place in overview.places] == [["ink"], ["ink"], ["digit"], ["digit"]]
    assert overview.missing == {}
    pictures = draw(study, results, tmp_path)
    assert not any("time-to-target" in picture.path.stem for picture in pictures)
    assert {"final--IID", "ranks"} <= {picture.path.stem for picture in pictures}


def test_a_label_looks_the_same_in_every_place_where_all_are_shown() -> None:
    few = Overview(STUDY, pa.Table.from_pylist(whole()))
    assert _looks(few, ["C", "A", "B"]) == _looks(few, ["A", "B", "C"])
    assert len({look["color"] for look in _looks(few, ["C", "A"]).values()}) == 2
    many = Overview(replace(STUDY, axes=AXES | {"strategy": {str(n): {} for n in range(30)}}), few.results)
    assert [look["linestyle"] for look in _looks(many, ["29", "3"]).values()] == ["-", "-"]


@pytest.mark.parametrize("decades", [2, 5, 30])
def test_errors_that_exploded_leave_a_few_ticks_below_the_dots(decades: int) -> None:
    rows = [r | {"final": r["final"] * (10.0**decades if r["strategy"] == "C" else 1.0)} for r in whole()]
    figures = [figure for _, figure in final_pages(Overview(STUDY, pa.Table.from_pylist(rows)))]
    logarithmic = [panel for figure in figures for panel in figure.axes if panel.get_xscale() == "log"]
    assert logarithmic
    assert all(2 <= len(panel.get_xticks()) <= 7 for panel in logarithmic)


@pytest.mark.parametrize(("spread", "far"), [(0.01, 1.0), (0.4, 3.0), (2.5, 1.0), (2.5, 1e4)])
def test_every_axis_holds_all_intervals_and_has_two_labels_at_least(spread: float, far: float) -> None:
    """Seeds lie apart by a share of their mean, at 2.5 with intervals below 0; C's ink is worse by a factor."""

    def moved(row: dict[str, Any]) -> dict[str, Any]:
        worse = far if (row["task"], row["strategy"]) == ("ink", "C") else 1.0
        spread_out = row["final"] * (1 + spread * row["seed"]) * worse
        return row | {"final": spread_out, "delta_m": row["delta_m"] - 7 + 10 * spread * row["seed"]}

    overview = Overview(STUDY, pa.Table.from_pylist([moved(row) for row in whole()]))
    for _, figure in final_pages(overview):
        assert len(figure.axes) == 6  # two tasks and delta-m, for two speeds
        for panel in figure.axes:
            low, high = panel.get_xlim()
            ends = np.concatenate([line.get_xdata() for line in panel.get_lines()])
            assert low < ends.min() <= ends.max() < high
            assert sum(low <= tick <= high for tick in panel.get_xticks()) >= 2
        # A change in per cent may be below 0.
        assert {panel.get_xscale() for panel in figure.axes[4:]} == {"linear"}


def test_a_bar_that_a_logarithmic_axis_cannot_hold_ends_in_an_arrow() -> None:
    rows = [r | {"final": r["final"] * (9.0 if r["strategy"] == "C" and r["seed"] else 1.0)} for r in whole()]
    figures = [figure for _, figure in final_pages(Overview(STUDY, pa.Table.from_pylist(rows)))]
    logarithmic = [panel for figure in figures for panel in figure.axes if panel.get_xscale() == "log"]
    assert len(logarithmic) == 4
    for panel in logarithmic:
        arrows = [line for line in panel.get_lines() if line.get_marker() == "<"]
        (bar,) = [line for line in panel.get_lines() if len(line.get_xdata()) == 2 and line.get_ydata()[0] == 2]
        assert [arrow.get_xdata()[0] for arrow in arrows] == [bar.get_xdata()[0]]
        assert bar.get_xdata()[0] == pytest.approx(0.05)  # a tenth of A's 0.5


def test_axes_of_curves_hold_the_bands_too() -> None:
    times = np.arange(4.0)
    curve = times, np.array([[2.0, 1.0, 0.9, 0.8], [2.0, 1.6, 40.0, 0.7]])
    _, (panel,) = new_figure(3.0)
    _draw_panel(panel, {"A": curve}, {"A": line_look(0)})
    _finish_panel(panel, "ink", "mse", [curve])
    low, high = panel.get_ylim()
    assert low < 0.7 < 40.0 < high
    assert panel.get_yscale() == "log"


@pytest.mark.parametrize("high", [1.3, 2.0, 5.0, 90.0, 3e4, 1e30])
@pytest.mark.parametrize("low", [1.0, 0.33, 73.0])
def test_a_logarithmic_axis_has_two_to_six_ticks(low: float, high: float) -> None:
    ticks = log_ticks(low, low * high)
    assert 2 <= len(ticks) <= 6
    assert low <= min(ticks) < max(ticks) <= low * high
    assert ticks == sorted(set(ticks))
