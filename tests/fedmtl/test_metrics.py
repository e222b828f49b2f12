import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.metrics import Metric, changes, delta_m, delta_m_by_task, mean_ranks

SEGMENTATION = [Metric("segmentation", "mIoU", True), Metric("segmentation", "PixAcc", True)]
DEPTH = [Metric("depth", "Abs", False), Metric("depth", "Rel", False)]
NORMALS = [
    Metric("normals", "Mean", False),
    Metric("normals", "Med", False),
    *(Metric("normals", angle, True) for angle in ("11.25", "22.5", "30")),
]
NYU = [*SEGMENTATION, *DEPTH, *NORMALS]
CITY = [*SEGMENTATION, *DEPTH]
NYU_ROWS = {
    "STL": (38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15),
    "NTKMTL": (39.68, 65.43, 0.5296, 0.2168, 24.24, 18.63, 30.74, 58.72, 70.78),
    "SR": (40.23, 65.28, 0.5261, 0.2136, 24.88, 19.58, 29.53, 56.67, 69.08),
}
CITY_ROWS = {
    "STL": (74.01, 93.16, 0.0125, 27.77),
    "NTKMTL": (73.71, 92.71, 0.0136, 27.21),
    "SR": (72.58, 92.93, 0.0124, 31.65),
}
TWO_DECIMALS = {"abs": 0.005}


@pytest.mark.parametrize(("method", "expected"), [("NTKMTL", -6.99), ("SR", -5.36), ("STL", 0.0)])
def test_delta_m_of_the_papers_nyuv2_rows(method, expected):
    assert delta_m(NYU_ROWS[method], NYU_ROWS["STL"], NYU) == pytest.approx(expected, **TWO_DECIMALS)


@pytest.mark.parametrize(("method", "expected"), [("NTKMTL", 1.92), ("SR", 3.84), ("STL", 0.0)])
def test_delta_m_of_the_papers_cityscapes_rows(method, expected):
    assert delta_m(CITY_ROWS[method], CITY_ROWS["STL"], CITY) == pytest.approx(expected, **TWO_DECIMALS)


@pytest.mark.parametrize(("method", "expected"), [("NTKMTL", -9.18), ("SR", -8.49), ("STL", 0.0)])
def test_delta_m_by_task_of_the_papers_nyuv2_rows(method, expected):
    assert delta_m_by_task(NYU_ROWS[method], NYU_ROWS["STL"], NYU) == pytest.approx(expected, **TWO_DECIMALS)


def test_the_two_averages_differ_where_tasks_have_unequal_numbers_of_metrics():
    metrics = [Metric("a", "x", True), Metric("b", "y", False), Metric("b", "z", False)]
    values, baseline = (1.1, 3.0, 2.0), (1.0, 2.0, 1.0)
    assert changes(values, baseline, metrics) == pytest.approx([-10.0, 50.0, 100.0])
    assert delta_m(values, baseline, metrics) == pytest.approx(140 / 3)
    assert delta_m_by_task(values, baseline, metrics) == pytest.approx((-10 + 75) / 2)


@pytest.mark.parametrize("base", [0.0, math.nan, math.inf])
def test_a_baseline_that_nothing_is_relative_to_is_refused(base):
    with pytest.raises(ValueError, match="depth, Abs: the baseline is"):
        delta_m((1.0, 1.0), (base, 1.0), DEPTH)


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="1 values, 2 of the baseline and 2 metrics"):
        delta_m((1.0,), (1.0, 1.0), DEPTH)
    with pytest.raises(ValueError, match="A has 1 values for 2 metrics"):
        mean_ranks({"A": (1.0,)}, DEPTH)
    with pytest.raises(ValueError, match="at least one method"):
        mean_ranks({}, DEPTH)


def test_mean_rank_follows_each_metrics_direction():
    rows = {name: CITY_ROWS[name] for name in ("STL", "NTKMTL", "SR")}
    assert mean_ranks(rows, CITY) == pytest.approx({"STL": 1.5, "NTKMTL": 2.25, "SR": 2.25})


@pytest.mark.parametrize(("ties", "expected"), [("average", [1.0, 2.5, 2.5, 4.0]), ("dense", [1.0, 2.0, 2.0, 3.0])])
def test_ties_are_given_what_the_rule_says(ties, expected):
    rows = {"A": (1.0,), "B": (2.0,), "C": (2.0,), "D": (7.0,)}
    assert list(mean_ranks(rows, DEPTH[:1], ties).values()) == expected


def test_a_value_that_is_not_a_number_is_last():
    assert mean_ranks({"A": (math.nan,), "B": (0.1,)}, SEGMENTATION[:1]) == {"A": 2.0, "B": 1.0}


rows_of = st.integers(1, 4).flatmap(
    lambda metrics: st.lists(st.lists(st.integers(0, 4), min_size=metrics, max_size=metrics), min_size=1, max_size=6)
)


@given(rows=rows_of, ties=st.sampled_from(["average", "dense"]))
def test_a_rank_counts_how_many_are_better(rows, ties):
    """Ties share the mean of their places, or values are counted instead of rows."""
    metrics = [Metric("t", str(index), index % 2 == 0) for index in range(len(rows[0]))]
    found = mean_ranks({str(index): row for index, row in enumerate(rows)}, metrics, ties)

    def rank(value, column, higher_is_better):
        better = [other for other in column if (other > value if higher_is_better else other < value)]
        return 1 + (len(better) + (column.count(value) - 1) / 2 if ties == "average" else len(set(better)))

    columns = list(zip(*rows, strict=True))
    for index, row in enumerate(rows):
        ranks = [rank(v, columns[m], metrics[m].higher_is_better) for m, v in enumerate(row)]
        assert found[str(index)] == pytest.approx(sum(ranks) / len(ranks))
