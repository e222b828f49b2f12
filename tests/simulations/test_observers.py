"""Observers that record and evaluate, on a real strategy and loop over a fleet with scripted answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.evaluation import Evaluator
from fedmtl.models import MultiTaskModel
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Arrival, Event, GlobalModel, TrainOrder, Update
from fedmtl.records import Recorder, read_table
from fedmtl.tasks import Task
from simulations.observers import Evaluation, Recording
from strategies.aggregators.gradient import GradientAggregator
from strategies.core.fleet import Fleet
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.schedulers.buffered import Buffered
from strategies.weightings.uniform import Uniform

TASKS = (Task("slope", "regression"),)
CLIENTS = 3


class ScriptedFleet(Fleet):
    """Client c answers after c + 1 seconds with a step of 1/8; client 2's second answer is a failure."""

    def __init__(self) -> None:
        self._time = 0.0
        self._due: list[tuple[float, int, int, int]] = []

    def clients(self) -> Sequence[int]:
        return range(CLIENTS)

    def now(self) -> float:
        return self._time

    def send(self, orders: Sequence[TrainOrder]) -> None:
        self._due += [(self._time + o.client + 1, o.client, o.job, o.base.version) for o in orders]

    def next_event(self, until: float | None) -> Event | None:
        first = min(self._due)
        self._due.remove(first)
        self._time, client, job, version = first
        failed = "loss is not finite" if (client, job) == (2, 1) else None
        return Arrival(
            self._time, Update(client, job, version, torch.full((2,), 0.125), examples=4, steps=1, failure=failed)
        )

    def state_dict(self) -> dict[str, Any]:
        return {"time": self._time, "due": list(self._due)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._time, self._due = state["time"], [tuple(entry) for entry in state["due"]]


def new_model() -> MultiTaskModel:
    model = MultiTaskModel(nn.Identity(), 1, TASKS)
    nn.init.zeros_(model.heads["slope"].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model.heads["slope"].bias)  # type: ignore[arg-type]
    return model


def new_run(directory: Path | None, every: int) -> tuple[Loop, Recorder, Evaluation]:
    inputs = torch.linspace(-1, 1, 9)[:, None]
    part = Examples(inputs, (inputs[:, 0],))
    shards = Shards([np.arange(3 * client, 3 * client + 3) for client in range(CLIENTS)])
    data = FederatedData(TASKS, part, part, shards, Shards([np.arange(0)] * CLIENTS), np.ones((CLIENTS, 1), dtype=bool))
    model = new_model()
    layout = ParameterLayout.of(model)
    strategy = Strategy(Buffered(buffer_size=2), GradientAggregator(Uniform()))
    strategy.initialise(GlobalModel(0, layout.pack(model), layout))
    recorder = Recorder(directory, TASKS)
    evaluation = Evaluation(Evaluator(new_model(), data), recorder, every)
    return Loop(strategy, ScriptedFleet(), [Recording(recorder), evaluation]), recorder, evaluation


def until(version: int) -> Any:
    return lambda loop: "enough" if loop.strategy.model.version >= version else None


def evaluated(recorder: Recorder) -> list[int]:
    return sorted(set(recorder.table("evaluations")["version"].to_pylist()))


def test_versions_are_evaluated_at_the_start_when_due_and_at_the_end() -> None:
    loop, recorder, _ = new_run(None, every=3)
    loop.run(until(7))
    assert evaluated(recorder) == [0, 3, 6, 7]


def test_a_last_version_that_was_due_is_evaluated_once() -> None:
    loop, recorder, _ = new_run(None, every=3)
    loop.run(until(6))
    assert evaluated(recorder) == [0, 3, 6]
    assert recorder.table("evaluations").num_rows == 3 * 2  # metric and loss


def test_the_latest_metric_is_kept_and_compared_in_the_tasks_direction() -> None:
    loop, recorder, evaluation = new_run(None, every=1)
    loop.run(until(3))
    rows = [row for row in recorder.table("evaluations").to_pylist() if row["metric"] == "mse"]
    assert evaluation.latest == {"slope": rows[-1]["value"]}
    assert rows[-1]["value"] < rows[0]["value"]
    assert evaluation.reached("slope", rows[-1]["value"])
    assert evaluation.reached("slope", rows[0]["value"])
    assert not evaluation.reached("slope", rows[-1]["value"] / 2)


def test_before_the_first_evaluation_no_target_is_reached() -> None:
    _, _, evaluation = new_run(None, every=1)
    assert not evaluation.reached("slope", 1e9)


def test_every_upload_is_recorded_once_as_applied_rejected_or_unsettled() -> None:
    loop, recorder, _ = new_run(None, every=5)
    loop.run(until(7))
    rows = recorder.table("updates").to_pylist()
    settled = [(row["client"], row["job"]) for row in rows]
    assert len(settled) == len(set(settled)) == loop.arrivals
    assert [row["rejected"] for row in rows if row["rejected"]] == ["loss is not finite"]
    assert sum(row["applied_version"] is not None for row in rows) == 7 * 2
    assert sum(row["applied_version"] is None and row["rejected"] is None for row in rows) == loop.strategy.waiting


def test_an_update_that_waits_when_the_run_ends_is_recorded_as_unsettled() -> None:
    loop, recorder, _ = new_run(None, every=5)
    loop.run(lambda loop: "one is enough" if loop.arrivals else None)
    assert recorder.table("updates").select(["client", "applied_version", "rejected"]).to_pylist() == [
        {"client": 0, "applied_version": None, "rejected": None}
    ]


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 8])
def test_a_resumed_run_leaves_the_same_files(tmp_path: Path, cut: int) -> None:
    whole, recorder, _ = new_run(tmp_path / "whole", every=3)
    whole.run(until(8))
    recorder.finish()

    loop, recorder, _ = new_run(tmp_path / "cut", every=3)
    loop.run(until(cut))
    state, rows = loop.state_dict(), recorder.state_dict()
    loop, recorder, evaluation = new_run(tmp_path / "cut", every=3)
    loop.load_state_dict(state)
    recorder.load_state_dict(rows)
    evaluation.on_start(loop)
    assert evaluation.latest
    loop.run(until(8))
    recorder.finish()

    for name in ("updates", "aggregations", "evaluations"):
        assert read_table(tmp_path / "cut", name).equals(read_table(tmp_path / "whole", name))
        file = f"{name}.parquet"
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
