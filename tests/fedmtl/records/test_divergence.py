"""When a run has diverged, by its evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from fedmtl.evaluation import EvaluationRow
from fedmtl.records import Recorder
from fedmtl.records.divergence import Divergence, DivergenceWatch, divergence_words, watch_of
from fedmtl.tasks import Task

TASKS = (Task("digit", "classification", 10), Task("ink", "regression"))


def evaluations(losses: Sequence[float], **others: Sequence[float]) -> list[EvaluationRow]:
    """The loss of `ink` at versions 0, 2, 4, ..., and of `digit` 1, unless said; a value for each of other groups."""
    rows = []
    for place, loss in enumerate(losses):
        version, time = 2 * place, 1.0 * place
        for task, value in (("digit", 1.0), ("ink", loss)):
            rows.append(EvaluationRow(version, time, task, "accuracy" if task == "digit" else "mse", 0.5, "test"))
            rows.append(EvaluationRow(version, time, task, "loss", value, "test"))
        rows += [EvaluationRow(version, time, "ink", "mse", of[place], group) for group, of in others.items()]
    return rows


def found(losses: Sequence[float], **others: Sequence[float]) -> Divergence | None:
    """What a watch finds that sees the evaluations as they come, and one that sees the table at the end."""
    rows, recorder, live = evaluations(losses, **others), Recorder(None, TASKS), DivergenceWatch()
    for version in range(0, 2 * len(losses), 2):
        mine = [row for row in rows if row.version == version]
        recorder.add_evaluation(mine)
        live.see(mine)
    assert watch_of(recorder.table("evaluations")).found == live.found
    return live.found


def test_a_loss_a_hundred_times_its_first_is_divergence_at_the_third_evaluation_in_a_row() -> None:
    diverged = found([0.5, 51.0, 60.0, 70.0, 1.0])
    assert diverged is not None
    assert (diverged.version, diverged.task) == (6, "ink")
    assert "above 100 times that of version 0 (0.5) in 3 evaluations, from version 2 on" in diverged.why


@pytest.mark.parametrize(
    "losses",
    [
        [0.5, 60.0, 60.0, 40.0, 60.0, 60.0],  # never three in a row
        [0.5, 50.0, 50.0, 50.0],  # a hundred times, and not above
        [0.5, 60.0, 60.0],
        [0.5, 0.4, 0.3, 0.2],
    ],
)
def test_less_is_no_divergence(losses: list[float]) -> None:
    assert found(losses) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_evaluation_that_is_not_finite_is_divergence_at_once(value: float) -> None:
    diverged = found([0.5, 0.4, value, 0.3])
    assert diverged == Divergence(4, "ink", f"its loss on the test set is {value}")


def test_the_metric_of_a_group_of_clients_counts_if_it_is_not_finite() -> None:
    assert found([0.5, 0.5], worst=[1e30, math.inf]) == Divergence(2, "ink", "its mse on the group 'worst' is inf")
    assert found([0.5] * 5, worst=[0.1, 1e30, 1e30, 1e30, 1e30]) is None


def test_version_0_may_be_what_is_not_finite() -> None:
    diverged = found([math.inf, 0.5])
    assert diverged is not None
    assert diverged.version == 0


def test_a_first_loss_of_nothing_has_no_hundredfold_and_the_next_one_takes_its_place() -> None:
    assert found([0.0, 0.5, 0.4, 0.6, 0.5]) is None
    diverged = found([0.0, 0.5, 60.0, 1e30, 1e54])
    assert diverged is not None
    assert diverged.version == 8
    assert "that of version 2 (0.5)" in diverged.why
    assert found([0.0] * 9) is None


def test_the_first_divergence_is_the_one_that_is_told() -> None:
    diverged = found([0.5, math.inf, math.nan])
    assert diverged is not None
    assert divergence_words(diverged.as_json()) == "diverged at version 2: task ink: its loss on the test set is inf"
    step = Divergence(7, None, "a server step was not finite").as_json()
    assert divergence_words(step) == "diverged at version 7: a server step was not finite"
