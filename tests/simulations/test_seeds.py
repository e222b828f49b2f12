"""Seeds apart: each of data, devices and first model can be held fixed, and nothing else with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clients.client_app import Node
from fedmtl.config import parse_config
from fedmtl.protocol import GlobalModel
from simulations import Experiment, run
from simulations.digests import entering
from simulations.studies.file import load_study
from strategies.core.strategy import Strategy

BASE = (
    *(
        "data.clients=6",
        "tasks.ownership=random",
        "model.hidden=[8]",
        "strategy.name=fedbuff",
        "strategy.buffer_size=2",
    ),
    *("data.shift=noise", "data.shift_strength=0.1"),
    *("devices.kind=normal", "devices.jitter=0.2", "devices.dropout=0.3", "balancing.name=equal"),
)


def made(*overrides: str) -> Experiment:
    return Experiment.load(overrides=[*BASE, *overrides])


def of_data(experiment: Experiment) -> Any:
    data = experiment.data
    split = [part.indices.tolist() for part in (data.shards, data.validation)]
    return split, data.owners.tolist(), data.train.features.tolist(), data.test.features.tolist()


def of_devices(experiment: Experiment) -> Any:
    devices = experiment.devices
    # An order of one step, whatever the shards are.
    jobs = [(client, job) for client in range(6) for job in range(8)]
    times = [devices.duration(client, job, 1, 0, 0) for client, job in jobs]
    return times, [devices.outage(client, job, 1.0) for client, job in jobs]


def of_model(experiment: Experiment) -> Any:
    return experiment.initial.vector.tolist()


def of_the_rest(experiment: Experiment) -> Any:
    strategy = experiment.new_strategy()
    decision = strategy.begin(range(6), 0.0).decision
    return [order.seed for order in strategy.orders(decision.assignments)]


PARTS: dict[str, Callable[[Experiment], Any]] = {"data": of_data, "devices": of_devices, "model": of_model}


@pytest.fixture(scope="module")
def plain() -> dict[int, dict[str, Any]]:
    """What experiments of two seeds are made of."""
    seeds = {seed: made(f"seed={seed}") for seed in (1, 7)}
    return {seed: {name: of(one) for name, of in {**PARTS, "rest": of_the_rest}.items()} for seed, one in seeds.items()}


@pytest.mark.parametrize("held", PARTS)
def test_a_seed_holds_its_part_and_nothing_else(held: str, plain: dict[int, dict[str, Any]]) -> None:
    experiment = made("seed=1", f"{held}.seed=7")
    for name, of in {**PARTS, "rest": of_the_rest}.items():
        assert of(experiment) == plain[7 if name == held else 1][name], name
        assert plain[1][name] != plain[7][name]


@pytest.mark.parametrize("held", PARTS)
def test_a_node_of_a_deployment_has_the_same(held: str) -> None:
    overrides = ["seed=1", f"{held}.seed=7"]
    server, node = made(*overrides), Node(parse_config({}, [*BASE, *overrides]))
    assert of_data(server) == of_data(node)  # type: ignore[arg-type]
    assert server.layout.pack(node.new_model()).equal(server.initial.vector)


def test_drawn_examples_belong_to_the_data() -> None:
    synthetic = ["data.source=synthetic", "data.partition=natural", "tasks.ownership=all", "model.name=linear"]

    def features(*overrides: str) -> Any:
        tables = {"data": {"clients": 4}, "strategy": {"name": "fedbuff"}}
        return Experiment.load(tables=tables, overrides=[*synthetic, *overrides]).data.train.features.tolist()

    assert features("seed=1", "data.seed=7") == features("seed=2", "data.seed=7") == features("seed=7")
    assert features("seed=1") != features("seed=7")


def test_first_models_that_a_strategy_draws_belong_to_the_model() -> None:
    def strategy_of(*overrides: str) -> Strategy:
        return Experiment.load(overrides=["data.clients=6", "model.hidden=[12]", *overrides]).new_strategy()

    def first(*overrides: str) -> GlobalModel:
        return strategy_of(*overrides).model

    def own(*overrides: str) -> list[Any]:
        strategy = strategy_of("balancing.name=equal", *overrides)
        decision = strategy.begin(range(6), 0.0).decision
        return [order.base.vector.tolist() for order in strategy.orders(decision.assignments)]

    fixed = ("strategy.name=fedgela",)
    assert first(*fixed, "seed=1", "model.seed=7").vector.equal(first(*fixed, "seed=7").vector)
    gossip = ("strategy.name=dimat", "strategy.start=own")
    assert own(*gossip, "seed=1", "model.seed=7") == own(*gossip, "seed=7") != own(*gossip, "seed=1")


def test_seeds_enter_a_digest_only_where_they_are_set() -> None:
    assert "seed" not in entering(made().tables)["data"]
    digests = [made(f"{part}.seed=0").digest for part in PARTS]
    assert len({*digests, made().digest}) == 4


def test_a_study_holds_or_varies_each(tmp_path: Path) -> None:
    path = tmp_path / "seeds.toml"
    path.write_text(
        """
        seeds = 2
        [base.data]
        clients = 6
        [base.devices]
        kind = "uniform"
        seed = 5                        # one fleet, also where its kind is another
        [axes.partition.first.data]
        seed = 0
        [axes.partition.second.data]
        seed = 1
        [axes.devices.normal.devices]
        kind = "normal"
        """,
        encoding="utf-8",
    )
    seeds = [(cell.seed, Experiment.load(tables=cell.tables).config.seeds) for cell in load_study(path).cells()]
    assert seeds == [(0, (0, 5, 0)), (0, (1, 5, 0)), (1, (0, 5, 1)), (1, (1, 5, 1))]


def test_a_run_says_which_seeds_were_in_force(tmp_path: Path) -> None:
    experiment = made("seed=1", "data.seed=7", "stop.versions=1", "records.pictures=[]")
    run(experiment, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["seed"], summary["seeds"]) == (1, {"data": 7, "devices": 1, "model": 1})
    found = [pq.read_schema(tmp_path / f"{name}.parquet").metadata[b"seed"] for name in ("partition", "devices")]
    assert found == [b"7", b"1"]
    assert "seed 1 (data 7)" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert Experiment.load(tmp_path / "experiment.toml").config.seeds == experiment.config.seeds
