"""A short real run of each asynchronous and semi-asynchronous method: real digits, twenty clients of many speeds."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from simulations import Experiment, run

METHODS = {
    "fedasync": [],
    "fedbuff": ["strategy.buffer_size=4", "strategy.server_momentum=0.5", "strategy.concurrency=8"],
    "safa": ["strategy.buffer_size=4", "strategy.cache='half'"],
    "fedat": ["strategy.tiers=3"],
    "mstep": ["strategy.buffer_size=4"],
    "wkafl": ["strategy.buffer_size=4"],
    "fedac": ["strategy.buffer_size=4", "strategy.server_rate=0.01"],
    "fadas": ["strategy.buffer_size=4", "strategy.server_rate=0.01"],
    "ca2fl": ["strategy.buffer_size=4", "strategy.cache='disk'"],
    "defedavg": ["strategy.buffer_size=4"],
    "fedqueue": ["devices.kind='uniform'", "strategy.first_steps=4", "strategy.max_steps=20"],
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_on_real_digits(tmp_path: Path, name: str) -> None:
    settings = [f"name={name}", f"strategy.name={name}", "data.clients=20", "stop.versions=10", *METHODS[name]]
    result = run(
        Experiment.load(None, [*settings, "records.evaluate_every=5", "devices.dropout=0.05"]),
        tmp_path / "run",
        pictures=False,
    )
    assert result.ended == "10 versions were made"
    values = pq.read_table(result.directory / "evaluations.parquet").to_pydict()
    assert all(map(math.isfinite, values["value"]))
    updates = pq.read_table(result.directory / "updates.parquet").to_pydict()
    settled = result.summary["updates"]
    assert len(updates["client"]) == settled["applied"] + settled["rejected"] + settled["unsettled"]
    assert min(tau for tau in updates["staleness"] if tau is not None) >= 0
