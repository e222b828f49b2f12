"""Final values: over which evaluations their means are."""

from __future__ import annotations

import math

import pytest

from fedmtl.records.finals import Window, final_mean, final_window, window_words


@pytest.mark.parametrize(
    ("versions", "first", "evaluations"),
    [
        (range(201), 181, 20),  # every version of many: the last twenty
        (range(0, 401, 10), 210, 20),
        ([0, 10, 20], 20, 1),  # of few, those of the second half alone
        ([0, 10, 20, 25], 20, 2),
        ([0, 3], 3, 1),
        ([0, 1, 2, 3, 4], 3, 2),
    ],
)
def test_a_final_value_is_of_the_last_evaluations_and_of_the_second_half(
    versions: list[int], first: int, evaluations: int
) -> None:
    assert final_window(versions) == Window(first, versions[-1], evaluations)
    assert final_mean(versions, [0.0 if v < first else 1.0 for v in versions]) == 1.0


@pytest.mark.parametrize("last", range(1, 60))
def test_the_untrained_version_never_counts_beside_others(last: int) -> None:
    for every in (1, 7, 10):
        versions = [*range(0, last, every), last]
        assert final_window(versions).first > 0
        assert math.isfinite(final_mean(versions, [math.nan, *[1.0] * (len(versions) - 1)]))


def test_the_untrained_version_counts_alone_and_that_is_said() -> None:
    assert final_mean([0], [0.25]) == 0.25
    assert window_words(final_window([0]).as_json()) == "version 0 alone, which is not trained"


def test_nothing_evaluated_has_no_mean() -> None:
    assert math.isnan(final_mean([], []))
    assert window_words(final_window([]).as_json()) == "no evaluation"


def test_a_window_is_told_by_its_versions() -> None:
    assert window_words(final_window(range(0, 401, 10)).as_json()) == "versions 210 to 400, 20 evaluations"
    assert window_words(final_window([0, 10, 20]).as_json()) == "version 20 alone"
