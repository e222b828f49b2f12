"""A run in numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from fedmtl.errors import RunDirectoryError
from fedmtl.evaluation import EvaluationRow
from fedmtl.protocol import Aggregation, Rejection, Update
from fedmtl.records import Recorder, read_summary, summarise, write_summary
from fedmtl.tasks import Task

TASKS = [Task("digit", "classification", 10), Task("ink", "regression")]
ACCURACY = [0.1, 0.5, 0.9, 0.8]
ERROR = [4.0, 1.0, 2.0, 3.0]


def summary_of(target: tuple[str, float] | None = None, errors: list[float] = ERROR) -> dict[str, object]:
    recorder = Recorder(None, TASKS)

    def upload(job: int) -> Update:
        return Update(0, job, 0, torch.zeros(1), examples=1, steps=1, bytes_up=10, bytes_down=12)

    recorder.add_aggregation(Aggregation(1, 2.0, "full", (upload(0), upload(1)), (0.5, 0.5), (0, 0), frozenset()))
    recorder.add_rejection(Rejection(3.0, upload(2), "late"))
    recorder.add_unsettled([upload(3)])
    for version, (accuracy, error) in enumerate(zip(ACCURACY, errors, strict=True)):
        time = 10.0 * version
        recorder.add_evaluation(
            [
                EvaluationRow(version, time, "digit", "accuracy", accuracy, "test"),
                EvaluationRow(version, time, "digit", "loss", 9.0, "test"),
                EvaluationRow(version, time, "digit", "accuracy", accuracy / 2, "slow"),
                EvaluationRow(version, time, "ink", "mse", error, "test"),
            ]
        )
    return summarise(
        recorder, name="n", strategy="s", seed=3, ended="enough", time=40.0, wall_seconds=1.5, target=target
    )


def test_uploads_and_bytes_are_counted_by_what_became_of_them() -> None:
    summary = summary_of()
    assert summary["versions"] == 1
    assert summary["updates"] == {"applied": 2, "rejected": 1, "unsettled": 1}
    assert summary["bytes"] == {"up": 40, "down": 48}
    assert (summary["name"], summary["strategy"], summary["seed"], summary["ended"]) == ("n", "s", 3, "enough")
    assert (summary["time"], summary["wall_seconds"]) == (40.0, 1.5)


def test_final_metrics_are_last_mean_and_best_in_the_tasks_direction() -> None:
    digit, ink = summary_of()["tasks"]  # type: ignore[misc]
    # Four versions were evaluated, 0 to 3: the mean is over the later half, 2 and 3.
    assert (digit["last"], digit["best"], digit["mean_of_last"]) == (0.8, 0.9, pytest.approx(0.85))
    assert (ink["last"], ink["best"], ink["mean_of_last"]) == (3.0, 1.0, 2.5)
    assert digit["groups"] == {"test": 0.8, "slow": 0.4}


@pytest.mark.parametrize(
    ("target", "version"), [(("digit", 0.5), 1), (("digit", 0.95), None), (("ink", 2.0), 1), (("ink", 0.5), None)]
)
def test_the_time_to_a_target_is_that_of_the_first_evaluation_that_reached_it(
    target: tuple[str, float], version: int | None
) -> None:
    found = summary_of(target)["target"]
    time = None if version is None else 10.0 * version
    assert found == {"task": target[0], "value": target[1], "version": version, "time": time}


def test_numbers_that_are_not_finite_are_null_in_the_file(tmp_path: Path) -> None:
    summary = summary_of(errors=[4.0, math.nan, 2.0, math.inf])
    assert summary["tasks"][1]["best"] == 2.0  # type: ignore[index]
    write_summary(tmp_path, summary)
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["tasks"][1]["last"] is None


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    summary = summary_of(("digit", 0.5))
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    write_summary(tmp_path, {**summary, "tasks": [{"name": "digit"}]})
    with pytest.raises(RunDirectoryError, match=r"summary\.json is not the summary of a run: tasks\.metric is missing"):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"holds no finished run: summary\.json is missing"),
        ("{", r"cannot read .*summary\.json"),
        ("[]", r"summary\.json is not the summary of a run"),
        ('{"tasks": []}', r"summary\.json is not the summary of a run: name is missing"),
    ],
)
def test_a_directory_without_a_usable_summary_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=message):
        read_summary(tmp_path)
