"""Real Flower: its simulation engine, and a SuperLink with SuperNodes on the loopback interface. Nothing is timed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fedmtl.config import parse_config
from fedmtl.records import read_summary
from simulations.experiment import Experiment
from simulations.runner import run

pytestmark = [pytest.mark.slow("flower"), pytest.mark.timeout(600)]

TABLES = ("updates", "aggregations", "evaluations")


def tables_of(directory: Path) -> dict[str, Any]:
    return {name: pq.read_table(directory / f"{name}.parquet") for name in TABLES}


def run_here(experiment: str, out: Path) -> dict[str, Any]:
    run(Experiment(parse_config(tomllib.loads(experiment))), out, pictures=False)
    return tables_of(out)


SIMULATED = """
seed = 4
[data]
clients = 6
partition = "iid"
[model]
name = "mlp"
hidden = [4]
[strategy]
name = "fedqs"
buffer_size = 3
[balancing]
name = "ntkmtl-sr"
[training]
epochs = 1
[stop]
versions = 6
[records]
evaluate_every = 2
"""


def test_flowers_simulation_engine_gives_the_bits_of_a_run_in_this_process(flower: Any, tmp_path: Path) -> None:
    flower.start_superlink("--simulation")
    federation = "num-supernodes=4 client-resources-num-cpus=1 init-args-num-cpus=2"
    flower.run(SIMULATED, tmp_path / "there", "--federation-config", federation)
    there, here = tables_of(tmp_path / "there"), run_here(SIMULATED, tmp_path / "here")
    for name in TABLES:
        assert there[name].equals(here[name]), f"{name}: {there[name].to_pylist()} != {here[name].to_pylist()}"
    assert here["aggregations"].num_rows == 6


DEPLOYED = """
seed = 4
[data]
source = "synthetic"
partition = "natural"
clients = 2
[model]
name = "mlp"
hidden = [4]
[strategy]
name = "fedqs"
buffer_size = 1
[balancing]
name = "equal"
[training]
epochs = 1
[stop]
versions = 4
[records]
evaluate_every = 4
"""


def test_an_asynchronous_strategy_runs_over_tls_on_supernodes_that_are_known(
    secure_flower: Any, tmp_path: Path
) -> None:
    flower = secure_flower
    keys = {name: flower.identity(name) for name in ("key0", "key1", "unregistered")}
    flower.start_superlink()
    flower.do(*(["supernode", "register", str(tmp_path / f"key{number}.pub"), "here"] for number in range(2)))
    for number in range(2):
        flower.start_supernode(f"supernode{number}", number, *keys[f"key{number}"])
    refused = {
        "stranger": keys["unregistered"],
        "without a key": ["--root-certificates", str(tmp_path / "ca.crt")],
        "without trust": ["--auth-supernode-private-key", str(tmp_path / "key1")],
    }
    flower.may_fail |= refused.keys()
    outsiders = {name: flower.start_supernode(name, 1, *safety) for name, safety in refused.items()}
    flower.run(DEPLOYED, tmp_path / "there")
    assert all(process.wait(60) != 0 for process in outsiders.values())
    for name, reason in {
        "stranger": "2004",
        "without a key": "2001",
        "without trust": "CERTIFICATE_VERIFY_FAILED",
    }.items():
        assert reason in flower.log(name), flower.log(name)
    there, here = tables_of(tmp_path / "there"), run_here(DEPLOYED, tmp_path / "here")
    assert read_summary(tmp_path / "there")["connections"] == {"lost": 0, "joined": 0}
    assert {name: table.schema for name, table in there.items()} == {name: table.schema for name, table in here.items()}

    steps = there["aggregations"].to_pylist()
    assert [step["version"] for step in steps] == [1, 2, 3, 4]
    assert all(step["size"] == 1 for step in steps)

    updates = [row for row in there["updates"].to_pylist() if row["applied_version"] is not None]
    assert {row["client"] for row in updates} == {0, 1}
    assert all(row["staleness"] == row["applied_version"] - 1 - row["base_version"] for row in updates)
    assert max(row["staleness"] for row in updates) >= 1, "both clients started from version 0, so the second was late"
    assert all(0 < row["dispatched_at"] < row["arrived_at"] for row in updates)
    assert all(row["rejected"] is None for row in updates)
    later = [row for row in updates if row["job"] > 0]
    assert later
    assert all(row["similarity"] is not None for row in later), "a node lost its client's last update"
    assert not here["updates"].equals(there["updates"]), "wall-clock time is not virtual time"
