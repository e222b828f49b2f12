"""The recorder's tables, segments and final files.

Long because every table is read back column by column.
"""

from __future__ import annotations

import math
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.client_types import TYPE_NUMBERS
from fedmtl.errors import CheckpointError, RunDirectoryError
from fedmtl.evaluation import EvaluationRow
from fedmtl.protocol import Aggregation, Rejection, Update
from fedmtl.records import SCHEMAS, Recorder, read_table
from fedmtl.records import recorder as recorder_module
from fedmtl.tasks import Task

TASKS = [Task("digit", "classification", 10), Task("ink", "regression")]
TABLES = ("updates", "aggregations", "evaluations")


def update(number: int, **values: Any) -> Update:
    both = {
        "tasks": (0, 1),
        "task_losses": (number + 0.5, 2.0),
        "mean_task_weights": (0.25, 1.75),
        "task_traces": (3.0, float(number)),
    }
    given: dict[str, Any] = {
        **both,
        "terms": {"client_type": TYPE_NUMBERS["FUC"], "similarity": 0.5},
        "learning_rate": 0.1,
        "dispatched_at": float(number),
        "arrived_at": number + 2.5,
        "bytes_up": 40,
        "bytes_down": 48,
        **values,
    }
    return Update(
        client=number % 7, job=number // 7, base_version=number, delta=torch.zeros(1), examples=20, steps=4, **given
    )


def step(recorder: Recorder, version: int) -> None:
    """One version: three updates, and every fifth time a rejection and an evaluation."""
    updates = tuple(update(3 * version + i) for i in range(3))
    late = frozenset({updates[1].key}) if version % 2 else frozenset()
    recorder.add_aggregation(
        Aggregation(version, 10.0 * version, "full", updates, (0.5, 0.3, 0.2), (0, 1, version), late)
    )
    if version % 5 == 0:
        recorder.add_rejection(Rejection(10.0 * version, update(900 + version), "loss is not finite"))
        rows = [EvaluationRow(version, 10.0 * version, task.name, task.metric, 1 / version, "test") for task in TASKS]
        recorder.add_evaluation(rows)


def end(recorder: Recorder) -> None:
    recorder.add_unsettled([update(1000), update(1001)])
    recorder.add_evaluation([EvaluationRow(99, 1e3, "digit", "accuracy", 0.9, "test")], last=True)
    recorder.finish()


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_every_upload_has_a_row_that_says_what_became_of_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    end(recorder)
    rows = read_table(tmp_path, "updates").to_pylist()
    applied, rejected, unsettled = rows[1], rows[3], rows[4]
    assert [row["applied_version"] for row in rows] == [5, 5, 5, None, None, None]
    assert applied == {
        "client": 16 % 7,
        "job": 2,
        "base_version": 16,
        "applied_version": 5,
        "staleness": 1,
        "steps": 4,
        "dispatched_at": 16.0,
        "arrived_at": 18.5,
        "weight": 0.3,
        "trigger": "full",
        "late": True,
        "client_type": "FUC",
        "learning_rate": 0.1,
        "momentum": 0.0,
        "similarity": 0.5,
        "feedback": False,
        "examples": 20,
        "bytes_up": 40,
        "bytes_down": 48,
        "rejected": None,
        "losses": [16.5, 2.0],
        "task_weights": [0.25, 1.75],
        "ntk": [3.0, 16.0],
    }
    assert rejected["rejected"] == "loss is not finite"
    assert {rejected[name] for name in ("staleness", "weight", "trigger")} == {None}
    assert {unsettled[name] for name in ("staleness", "weight", "trigger", "rejected")} == {None}


def test_a_type_that_there_is_not_is_recorded_as_none_and_absent_terms_as_nothing() -> None:
    recorder = Recorder(None, TASKS)
    for terms in ({"client_type": 9.0, "feedback": 1.0}, {"client_type": float("nan"), "feedback": 0.5}, {}):
        recorder.add_rejection(Rejection(0.0, update(0, terms=terms), "claims what there is not"))
    rows = recorder.table("updates").to_pylist()
    assert [row["client_type"] for row in rows] == ["", "", ""]
    assert [row["feedback"] for row in rows] == [True, False, False]
    assert [row["similarity"] for row in rows] == [None, None, None]


def test_aggregations_sum_up_their_updates() -> None:
    recorder = Recorder(None, TASKS)
    step(recorder, 4)
    assert recorder.table("aggregations").to_pylist() == [
        {"version": 4, "time": 40.0, "trigger": "full", "size": 3, "mean_staleness": 5 / 3, "max_staleness": 4}
    ]


def test_per_task_columns_are_aligned_to_all_tasks_and_null_where_not_owned() -> None:
    recorder = Recorder(None, TASKS)
    only_ink = update(0, tasks=(1,), task_losses=(2.0,), mean_task_weights=(1.0,), task_traces=())
    recorder.add_rejection(Rejection(0.0, only_ink, "late"))
    row = recorder.table("updates").to_pylist()[0]
    assert row["losses"] == [None, 2.0]
    assert row["task_weights"] == [None, 1.0]
    assert row["ntk"] == [None, None]


def test_a_rejected_upload_that_lies_about_its_tasks_is_recorded_all_the_same() -> None:
    recorder = Recorder(None, TASKS)
    recorder.add_rejection(Rejection(0.0, update(0, tasks=(7, -1), task_losses=(math.nan, 1.0)), "never asked for"))
    recorder.add_rejection(Rejection(0.0, update(1, tasks=(0,), task_losses=(1.0, 2.0)), "never asked for"))
    assert recorder.table("updates")["losses"].to_pylist() == [[None, None], [None, None]]


def test_a_loss_that_is_not_a_number_stays_one() -> None:
    recorder = Recorder(None, TASKS)
    recorder.add_rejection(Rejection(0.0, update(0, task_losses=(math.nan, math.inf)), "loss is not finite"))
    nan, infinity = recorder.table("updates")["losses"].to_pylist()[0]
    assert math.isnan(nan)
    assert infinity == math.inf


def test_finishing_leaves_the_three_tables_with_their_schemas_and_nothing_else(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    recorder.state_dict()
    end(recorder)
    assert sorted(files(tmp_path)) == sorted(f"{name}.parquet" for name in TABLES)
    for name in TABLES:
        assert read_table(tmp_path, name).schema == SCHEMAS[name]


def test_a_run_without_any_event_leaves_empty_tables(tmp_path: Path) -> None:
    Recorder(tmp_path, TASKS).finish()
    assert [read_table(tmp_path, name).num_rows for name in TABLES] == [0, 0, 0]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.sampled_from(["save", "kill", "finish and resume"]), st.integers(0, 12)), max_size=6),
    compact=st.integers(1, 50),
    group=st.integers(1, 60),
)
def test_final_files_do_not_depend_on_how_the_run_was_cut(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[str, int]], compact: int, group: int
) -> None:
    versions = 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder_module, "ROW_GROUP", group)
        whole = tmp_path_factory.mktemp("whole")
        recorder = Recorder(whole, TASKS)
        for version in range(1, versions + 1):
            step(recorder, version)
        end(recorder)

        patch.setattr("fedmtl.records.log._COMPACT", compact)
        directory = tmp_path_factory.mktemp("cut")
        recorder = Recorder(directory, TASKS)
        saved, version = (recorder.state_dict(), 0), 0
        for kind, steps in cuts:
            for _ in range(min(steps, versions - version)):
                version += 1
                step(recorder, version)
            if kind == "save":
                saved = recorder.state_dict(), version
                continue
            if kind == "finish and resume":
                end(recorder)
                saved = recorder.state_dict(), version
            elif steps % 2:
                recorder.state_dict()  # the process died before the checkpoint that was to name these segments
            recorder = Recorder(directory, TASKS)
            state, version = saved
            recorder.load_state_dict(state)
        while version < versions:
            version += 1
            step(recorder, version)
        end(recorder)
    assert files(directory) == files(whole)


def test_segments_written_after_the_checkpoint_are_deleted_on_resume(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    state = recorder.state_dict()
    step(recorder, 10)
    recorder.state_dict()
    (tmp_path / "records" / ".updates-000002.arrow.tmp").write_bytes(b"half")
    Recorder(tmp_path, TASKS).load_state_dict(state)
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == [
        "aggregations-000000.arrow",
        "evaluations-000000.arrow",
        "updates-000000.arrow",
    ]


def test_a_checkpoint_whose_segments_are_gone_is_refused(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    state = recorder.state_dict()
    (tmp_path / "records" / "updates-000000.arrow").unlink()
    message = r"the table updates cannot .*updates-000000\.arrow cannot be read.*updates\.parquet is missing; put one"
    with pytest.raises(CheckpointError, match=message):
        Recorder(tmp_path, TASKS).load_state_dict(state)


def test_a_checkpoint_whose_finished_table_is_gone_or_damaged_is_refused(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    state = recorder.state_dict()
    end(recorder)
    Recorder(tmp_path, TASKS).load_state_dict(state)
    table = tmp_path / "updates.parquet"
    whole = table.read_bytes()
    flipped = bytes([*whole[:40], whole[40] ^ 1, *whole[41:]])
    for damaged in (b"", whole[:500], flipped):
        table.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"cannot read .*updates\.parquet.*; put one of the two back"):
            Recorder(tmp_path, TASKS).load_state_dict(state)
    table.unlink()
    with pytest.raises(CheckpointError, match=r"updates\.parquet is missing"):
        Recorder(tmp_path, TASKS).load_state_dict(state)
    (tmp_path / "aggregations.parquet").unlink()  # the state is of segments, so this table is as good as lost, too
    table.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"aggregations\.parquet is missing"):
        Recorder(tmp_path, TASKS).load_state_dict(state)


def test_a_damaged_finished_table_does_not_matter_while_the_segments_are_whole(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    state = recorder.state_dict()
    (tmp_path / "updates.parquet").write_bytes(b"half")
    resumed = Recorder(tmp_path, TASKS)
    resumed.load_state_dict(state)
    assert resumed.table("updates").equals(recorder.table("updates"))


def test_without_a_state_only_what_was_saved_for_the_first_one_may_be_there(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    recorder.state_dict()
    Recorder(tmp_path, TASKS).start_again()
    assert not (tmp_path / "records").exists()
    step(recorder, 6)
    recorder = Recorder(tmp_path, TASKS)
    for version in (5, 6):
        step(recorder, version)
        recorder.state_dict()
    with pytest.raises(
        CheckpointError, match=r"is missing, and .*-000001\.arrow shows that there was one: put it back"
    ):
        Recorder(tmp_path, TASKS).start_again()
    end(recorder)
    with pytest.raises(CheckpointError, match=r"is missing, and .*updates\.parquet shows that there was one"):
        Recorder(tmp_path, TASKS).start_again()


def test_a_damaged_segment_is_named_on_resume(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 1)
    state = recorder.state_dict()
    segment = tmp_path / "records" / "updates-000000.arrow"
    whole = segment.read_bytes()
    middle = len(whole) // 2
    flipped = bytes([*whole[:middle], whole[middle] ^ 1, *whole[middle + 1 :]])
    for damaged in (b"", whole[:500], flipped):
        segment.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"updates-000000\.arrow is damaged.*start again with --overwrite"):
            Recorder(tmp_path, TASKS).load_state_dict(state)
    segment.write_bytes(whole)
    resumed = Recorder(tmp_path, TASKS)
    resumed.load_state_dict(state)
    assert resumed.table("updates").equals(recorder.table("updates"))


def test_in_memory_the_state_is_the_rows() -> None:
    recorder = Recorder(None, TASKS)
    step(recorder, 5)
    other = Recorder(None, TASKS)
    other.load_state_dict(recorder.state_dict())
    for each in (recorder, other):
        step(each, 6)
        end(each)
    assert all(recorder.table(name).equals(other.table(name)) for name in TABLES)


def test_the_latest_evaluation_is_that_of_the_newest_version() -> None:
    recorder = Recorder(None, TASKS)
    assert recorder.latest_evaluation() == []
    step(recorder, 5)
    step(recorder, 10)
    assert recorder.latest_evaluation() == [
        EvaluationRow(10, 100.0, "digit", "accuracy", 0.1, "test"),
        EvaluationRow(10, 100.0, "ink", "mse", 0.1, "test"),
    ]


def test_a_finished_recorder_takes_no_rows_but_still_shows_its_tables(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    step(recorder, 5)
    end(recorder)
    with pytest.raises(RuntimeError, match="finished"):
        step(recorder, 6)
    assert recorder.table("updates").num_rows == 6


def test_final_tables_are_cut_into_row_groups_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "ROW_GROUP", 8)
    recorder = Recorder(tmp_path, TASKS)
    for version in range(1, 8):
        step(recorder, version)
    recorder.finish()
    metadata = pq.read_metadata(tmp_path / "updates.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [8, 8, 6]


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """No file may grow beyond this: the operating system fails the write, as it does when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, TASKS)
    for version in range(1, 200):
        step(recorder, version)
    with full_disk(4096), pytest.raises(RunDirectoryError, match=r"records/updates-000000\.arrow: File too large"):
        recorder.state_dict()
    with full_disk(4096), pytest.raises(RunDirectoryError, match=r"updates\.parquet: File too large"):
        recorder.finish()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    recorder.finish()
    assert pa.concat_tables([read_table(tmp_path, "updates")]).num_rows == 199 * 3 + 39


def test_a_directory_without_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds no finished run: updates\.parquet is missing"):
        read_table(tmp_path, "updates")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "updates.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(RunDirectoryError, match=r"cannot read .*updates\.parquet"):
        read_table(tmp_path, "updates")


def test_another_table_under_the_name_is_not_taken_for_it(tmp_path: Path) -> None:
    pq.write_table(SCHEMAS["aggregations"].empty_table(), tmp_path / "updates.parquet")
    with pytest.raises(RunDirectoryError, match=r"updates\.parquet is not a run's table of updates: the column client"):
        read_table(tmp_path, "updates")
