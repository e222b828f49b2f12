"""The synchronous methods on real digits with unequal clients: they learn, may be cut, and count their traffic."""

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
    "strategy.clients_per_round=6",
]
RECIPES = {
    "fedavg": ("strategy.timeout=40", "strategy.late=keep"),
    "fedprox": ("strategy.stragglers=0.5", "strategy.step_budget=20"),
    "scaffold": (),
    "fednova": ("strategy.stragglers=0.5", "training.momentum=0.5", "strategy.server_momentum=0.3"),
    "fedavgm": (),
    "fedadam": (),
    "fedyogi": (),
    "oort": (),
    "heteroselect": (),
}
ROBUST = ("krum", "multikrum", "trimmed-mean", "median", "bulyan", "dp-clip")


def small(name: str, *overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, f"name={name}", f"strategy.name={name}", *overrides])


def digit(result) -> float:
    return next(task["best"] for task in result.summary["tasks"] if task["name"] == "digit")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_run_learns_and_may_be_cut_anywhere(tmp_path: Path, name: str) -> None:
    result = run(small(name, *RECIPES[name]), tmp_path / "uncut", pictures=False)
    assert result.ended == "10 versions were made"
    assert digit(result) > 0.3  # a guess is right one time in ten
    cut = tmp_path / "cut"
    assert run(small(name, *RECIPES[name]), cut, pictures=False, observers=[InterruptAt(33)]).interrupted
    run(small(name, *RECIPES[name]), cut, resume=True, pictures=False)
    first, second = (load_file(tmp_path / which / "model.safetensors") for which in ("uncut", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    tables = [pq.read_table(tmp_path / which / "updates.parquet") for which in ("uncut", "cut")]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("rule", ROBUST)
def test_flowers_rules_learn(tmp_path: Path, rule: str) -> None:
    options = (
        f"strategy.aggregator={rule}",
        "strategy.weight_base=uniform",
        *(["strategy.selected=3"] if rule == "multikrum" else []),
        "model.hidden=[24]",
    )
    result = run(small("fedavg", *options), tmp_path / "run", pictures=False)
    assert digit(result) > 0.2


@pytest.mark.slow
def test_what_goes_up_and_down_is_counted(tmp_path: Path) -> None:
    def bytes_of(name: str) -> tuple[set[int], set[int]]:
        run(small(name), tmp_path / name, pictures=False)
        updates = pq.read_table(tmp_path / name / "updates.parquet").to_pydict()
        return set(updates["bytes_up"]), set(updates["bytes_down"])

    (plain,), (down,) = bytes_of("fedavg")
    assert plain == down
    model = plain - 4
    assert bytes_of("scaffold") == ({plain + model}, {plain, plain + model})  # no variate goes down at first
    assert bytes_of("oort") == ({plain + 8}, {plain})
