"""Methods that change what clients do: real runs on real digits, and where they must be FedAvg, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from simulations import Experiment, run
from tests.interrupting import InterruptAt

SMALL = [
    "data.clients=20",
    "stop.versions=10",
    "records.evaluate_every=5",
    "records.checkpoint_every=100",
    "training.batch_size=20",
]
RECIPES = {
    "fedspeed": ("strategy.clients_per_round=5",),
    "fal": ("strategy.clients_per_round=5", "strategy.attack_steps=2"),
    "dfedsam": ("data.clients=10", "strategy.gossip_steps=2"),
    "dimat": ("data.clients=10",),
    "fedgela": ("strategy.clients_per_round=5", "data.alpha=0.1"),
    "ferret": ("strategy.clients_per_round=5",),
    "curriculum": ("strategy.clients_per_round=5", "strategy.versions=6"),
    "heteroselect": ("strategy.clients_per_round=5", "strategy.score_compression=true"),
}


def small(name: str, *overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, f"name={name}", f"strategy.name={name}", *overrides])


def model(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    one, other = model(first), model(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_learns_and_may_be_cut_anywhere(tmp_path: Path, name: str) -> None:
    result = run(small(name, *RECIPES[name]), tmp_path / "uncut", pictures=False)
    assert result.ended == "10 versions were made"
    assert result.summary["updates"]["rejected"] == 0
    digit = next(task for task in result.summary["tasks"] if task["name"] == "digit")
    assert digit["best"] > 0.3  # a guess is right one time in ten
    cut = tmp_path / "cut"
    assert run(small(name, *RECIPES[name]), cut, pictures=False, observers=[InterruptAt(17)]).interrupted
    run(small(name, *RECIPES[name]), cut, resume=True, pictures=False)
    assert same(tmp_path / "uncut", cut)
    updates = [pq.read_table(tmp_path / which / "updates.parquet") for which in ("uncut", "cut")]
    assert updates[0].equals(updates[1])


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        ("fal", ("strategy.rho=0", "strategy.weight_base=data_size")),
        ("curriculum", ("strategy.start=1", "strategy.client_order=none")),
    ],
)
def test_without_its_own_idea_a_method_is_fedavg_bit_for_bit(
    tmp_path: Path, name: str, neutral: tuple[str, ...]
) -> None:
    rounds = "strategy.clients_per_round=5"
    run(small("fedavg", rounds), tmp_path / "fedavg", pictures=False)
    run(small(name, rounds, *neutral), tmp_path / "neutral", pictures=False)
    assert same(tmp_path / "fedavg", tmp_path / "neutral")


def test_compressed_updates_are_counted_as_what_went_up(tmp_path: Path) -> None:
    options = ("strategy.clients_per_round=5", "stop.versions=2")
    whole = run(small("fedavg", *options), tmp_path / "whole", pictures=False).summary["bytes"]
    less = run(small("fedavg", *options, "compression.name=shared-randomness"), tmp_path / "less", pictures=False)
    assert less.summary["bytes"]["down"] == whole["down"]
    assert less.summary["bytes"]["up"] < 0.3 * whole["up"]
    rows = pq.read_table(tmp_path / "less" / "updates.parquet")["bytes_up"].to_pylist()
    assert len(set(rows)) > 1  # a group's share of the coordinates depends on the update


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfedsam", "dimat"])
def test_gossip_goes_on_where_clients_drop_out_and_may_be_cut_anywhere(tmp_path: Path, name: str) -> None:
    options = (
        "data.clients=10",
        "strategy.topology=random",
        "devices.dropout=0.3",
        "devices.away=30",
        "stop.versions=6",
    )
    result = run(small(name, *options), tmp_path / "uncut", pictures=False)
    assert result.ended == "6 versions were made"
    assert result.summary["updates"]["applied"] < 60
    cut = tmp_path / "cut"
    assert run(small(name, *options), cut, pictures=False, observers=[InterruptAt(23)]).interrupted
    run(small(name, *options), cut, resume=True, pictures=False)
    assert same(tmp_path / "uncut", cut)


def test_gossip_reports_the_clients_own_models_and_counts_what_neighbours_exchange(tmp_path: Path) -> None:
    options = (
        "data.clients=10",
        "strategy.gossip_steps=3",
        "stop.versions=2",
        "records.evaluate_every=1",
        'tasks.names=["digit"]',
    )
    run(small("dfedsam", *options), tmp_path / "gossip", pictures=False)
    run(
        small("fedavg", "data.clients=10", "stop.versions=2", 'tasks.names=["digit"]'),
        tmp_path / "fedavg",
        pictures=False,
    )
    sizes = [
        pq.read_table(tmp_path / which / "updates.parquet", columns=["bytes_up", "bytes_down"]).to_pylist()[0]
        for which in ("gossip", "fedavg")
    ]
    for way in ("bytes_up", "bytes_down"):  # two neighbours in a ring, three times; 4 bytes for the version
        assert sizes[0][way] - 4 == 6 * (sizes[1][way] - 4)
    rows = pq.read_table(tmp_path / "gossip" / "evaluations.parquet").to_pylist()
    value = {(row["version"], row["group"]): row["value"] for row in rows if row["metric"] == "accuracy"}
    assert value[0, "nodes"] == pytest.approx(value[0, "test"])
    assert value[0, "worst node"] == pytest.approx(value[0, "test"])
    assert value[2, "worst node"] < value[2, "nodes"]
