"""FedCompass, and FedQS over its groups, both with NTKMTL-SR: real runs on real digits with unequal clients."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from fedmtl.config import read_toml
from fedmtl.errors import ConfigError
from simulations import Experiment, run
from tests.interrupting import InterruptAt

SMALL = [
    "data.clients=12",
    "devices.ratio=6",
    "stop.versions=24",
    "records.evaluate_every=8",
    "records.checkpoint_every=100",
    "training.batch_size=20",
    "balancing.name=ntkmtl-sr",
]
CONFIGURATIONS = {
    "fedcompass": ["strategy.name=fedcompass", "strategy.q_max=12"],
    "fedcompass-plus": ["strategy.name=fedcompass", "strategy.q_max=12", "strategy.variant=momentum"],
    "fedqs-typing-in-groups": [
        "strategy.name=custom",
        'strategy.scheduler={name="compass", q_max=12}',
        "strategy.policy=fedqs",
        'strategy.weighting={name="staleness", factor=0.9, base="share-of-all"}',
    ],
    "fedqs-weights-in-groups": [
        "strategy.name=custom",
        'strategy.scheduler={name="compass", q_max=12}',
        "strategy.policy=fedqs",
        'strategy.weighting={name="share-of-all", base="fedqs"}',
    ],
}
QUICK = "fedqs-weights-in-groups"
every_configuration = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in CONFIGURATIONS]
)


def experiment(name: str) -> Experiment:
    return Experiment.load(None, [*SMALL, f"name={name}", *CONFIGURATIONS[name]])


def same(first: Path, second: Path) -> bool:
    one, other = (load_file(directory / "model.safetensors") for directory in (first, second))
    tables = ("updates.parquet", "aggregations.parquet", "evaluations.parquet")
    return all(torch.equal(one[key], other[key]) for key in one) and all(
        (first / table).read_bytes() == (second / table).read_bytes() for table in tables
    )


@pytest.mark.slow
@every_configuration
def test_a_run_learns_in_groups_and_may_be_cut_anywhere(tmp_path: Path, name: str) -> None:
    result = run(experiment(name), tmp_path / "uncut", pictures=False)
    assert result.ended == "24 versions were made"
    digit = next(task for task in result.summary["tasks"] if task["name"] == "digit")
    assert digit["best"] > 0.3  # a tenth is chance

    updates = pq.read_table(tmp_path / "uncut" / "updates.parquet").to_pylist()
    settled = [row for row in updates if row["trigger"] is not None]
    assert len(settled) == len(updates)  # the last step takes what was still kept
    assert {row["trigger"] for row in settled} >= {"single"}
    assert {row["trigger"] for row in settled} & {"all", "deadline"}
    assert all(2 <= row["steps"] <= 12 for row in updates)
    assert len({row["steps"] for row in updates}) > 3
    typed = {row["client_type"] for row in updates} - {"", None}
    assert bool(typed) is name.startswith("fedqs")

    cut = run(experiment(name), tmp_path / "cut", observers=[InterruptAt(29)], pictures=False)
    assert cut.interrupted
    run(experiment(name), tmp_path / "cut", resume=True, pictures=False)
    assert same(tmp_path / "uncut", tmp_path / "cut")


def test_the_written_experiment_holds_every_option_of_every_part_and_is_the_same_experiment(tmp_path: Path) -> None:
    first = experiment(QUICK)
    run(first, tmp_path / "run", pictures=False)
    tables = read_toml(tmp_path / "run" / "experiment.toml")
    assert tables["strategy"]["scheduler"]["late_test"] == "strict"
    assert tables["strategy"]["weighting"]["base"]["base"]["name"] == "uniform"
    assert tables["strategy"]["policy"]["similarity"] == "angle"
    assert Experiment.load(tmp_path / "run" / "experiment.toml").digest == first.digest


def test_a_misfit_is_refused_when_the_experiment_is_read() -> None:
    with pytest.raises(ConfigError, match=r"FedQSWeights .* needs 'feedback'"):
        Experiment.load(None, ["strategy.name=custom", "strategy.weighting=fedqs"])
