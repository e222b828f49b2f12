"""A deployed run that survives what can happen to it: a hostile client, a client that dies, and its own server's stop.

One deployment, since Flower's processes take long to start; each part of the story has its test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from fedmtl.checkpoint import load_checkpoint
from fedmtl.records import read_summary
from strategies.flower.dispatched import STOPPED

pytestmark = [pytest.mark.slow("flower"), pytest.mark.timeout(600)]

HONEST, HOSTILE, DYING = range(3)
EXPERIMENT = """
[data]
source = "synthetic"
partition = "natural"
clients = 3
[model]
name = "mlp"
hidden = [4]
[strategy]
name = "fedbuff"
buffer_size = 1
[balancing]
name = "equal"
[training]
epochs = 1
[stop]
versions = 1000
[records]
evaluate_every = 1000
checkpoint_every = 1000
"""

# Python runs a module of this name at its start. The node itself is honest; the process that works for it is not.
TAMPERED = """
import sys

if any("flwr-clientapp" in argument for argument in sys.orig_argv):
    import json

    import numpy as np
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp

    honest = ClientApp.__call__

    def spoilt(content, job):
        text = content["state"]["json"]
        name = json.loads(text)["delta"]["$tensor"]
        delta = content["tensors"][name].numpy()
        deltas = [None, np.full_like(delta, np.nan), np.zeros(1 << 23, np.float32)]
        if job == 0:
            return RecordDict()
        if job == 3:
            raise ValueError("I do not feel like it")
        return RecordDict({"state": content["state"], "tensors": ArrayRecord({name: Array(deltas[job])})})

    def answer(self, message, context):
        reply = honest(self, message, context)
        job = json.loads(reply.content["state"]["json"]).get("job", 4)
        return reply if job > 3 else Message(spoilt(reply.content, job), reply_to=message)

    ClientApp.__call__ = answer
"""
REASONS = {0: "lacks a part", 1: "not finite", 2: "of shape (8388608,), expected"}


class Story(NamedTuple):
    """What the run left behind."""

    stopped_at: int
    updates: list[dict[str, Any]]
    connections: list[dict[str, Any]]
    summary: dict[str, Any]

    def happened_to(self, client: int) -> list[str | None]:
        """Why the client was lost, each time, with None where it joined."""
        return [row["lost"] for row in self.connections if row["client"] == client]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, flower_programs: Any) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("flower")
    tampered = folder / "tampered"
    tampered.mkdir()
    (tampered / "sitecustomize.py").write_text(TAMPERED)
    flower, out = flower_programs(folder), folder / "out"
    try:
        flower.start_superlink()
        flower.start_supernode("honest", HONEST)
        flower.start_supernode("hostile", HOSTILE, PYTHONPATH=str(tampered))
        flower.start_supernode("dying", DYING)
        options = {"ttl": 30.0, "patience": 120.0}
        over = flower.begin(EXPERIMENT, out, **options)
        flower.wait("an order to the node that dies", flower.says("dying", "Receiving: train"), 120)
        flower.kill("dying")
        flower.start_supernode("successor", DYING)
        flower.wait("the successor's update", flower.says("successor", "Sent successfully", 2), 150)
        flower.wait("the hostile node's last trick", flower.says("hostile", "Receiving: train", 5), 150)
        run_id = re.search(r"started run (\d+)", flower.log("run"))
        assert run_id is not None
        flower.do(["stop", run_id[1], "here"])
        flower.wait("the checkpoint", (out / "checkpoint" / "state.safetensors").exists, 60)
        flower.wait("the end of the stopped run", over, 60)
        assert not (out / "summary.json").exists()
        stopped_at = version_of(out / "checkpoint" / "state.safetensors")
        flower.run(EXPERIMENT, out, resume=True, set=f"stop.versions={stopped_at + 2}", **options)
        yield Story(
            stopped_at,
            pq.read_table(out / "updates.parquet").to_pylist(),
            pq.read_table(out / "connections.parquet").to_pylist(),
            read_summary(out),
        )
    finally:
        flower.stop()


def version_of(checkpoint: Path) -> int:
    with safe_open(checkpoint, "pt") as file:
        configuration = file.metadata()["configuration"]
    state = load_checkpoint(checkpoint.parent, configuration)
    assert state is not None
    return int(state["loop"]["strategy"]["model"]["version"])


def test_what_a_hostile_client_sends_is_rejected_with_the_reason(story: Story) -> None:
    mine = {row["job"]: row for row in story.updates if row["client"] == HOSTILE}
    for job, reason in REASONS.items():
        assert reason in mine[job]["rejected"]
    assert 3 not in mine
    refused, then, *_ = story.happened_to(HOSTILE)
    assert "I do not feel like it" in (refused or "")
    assert then is None, "it may try again"
    assert story.summary["updates"]["rejected"] >= len(REASONS)


def test_a_client_that_dies_at_work_is_lost_and_another_node_takes_its_place(story: Story) -> None:
    first, then, *_ = story.happened_to(DYING)
    assert first is not None
    assert re.match(r"error [35]: ", first), "the order expired, or Flower missed the node's heartbeat"
    assert then is None
    mine = [row for row in story.updates if row["client"] == DYING and row["applied_version"] is not None]
    assert mine
    assert all(row["job"] > 0 for row in mine), "the order that the dead node had was never answered"


def test_nobody_waits_for_those_who_fail(story: Story) -> None:
    lost = next(row["time"] for row in story.connections if row["client"] == DYING)
    early = [row for row in story.updates if row["applied_version"] is not None and row["arrived_at"] < lost]
    assert any(row["client"] == HONEST for row in early)


def test_a_stopped_server_goes_on_from_its_last_version(story: Story) -> None:
    versions = [row["applied_version"] for row in story.updates if row["applied_version"] is not None]
    assert sorted(versions) == list(range(1, story.stopped_at + 3))
    jobs = [(row["client"], row["job"]) for row in story.updates]
    assert len(set(jobs)) == len(jobs)
    lost = [row["client"] for row in story.connections if row["lost"] == STOPPED]
    assert lost, "nothing was in flight"
    assert all(story.happened_to(client)[-1] is None for client in lost), "a client that was at work did not come back"
    assert story.summary["connections"]["lost"] >= len(lost) + 2
    assert all(row["dispatched_at"] < row["arrived_at"] for row in story.updates)
