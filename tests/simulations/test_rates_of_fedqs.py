"""FedQS's rates follow the run's learning rate where they are unset, and stay what they are where they are set."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedmtl.errors import ConfigError
from fedmtl.protocol import TrainSettings
from simulations import Experiment, run
from strategies.policies.fedqs import FedQSPolicy

ABSOLUTE = ("strategy.a=0.002", "strategy.rate_min=0.001", "strategy.rate_max=0.2")
"""The numbers of the authors' code."""

SMALL = (
    *("data.clients=10", "strategy.buffer_size=4", "training.learning_rate=1.0", "balancing.name=equal"),
    *("model.hidden=[16]", "stop.versions=12", "records.evaluate_every=100", "devices.ratio=10"),
)


def in_force(policy: FedQSPolicy) -> tuple[float, float, float]:
    return policy.constants["a"], policy.constants["rate_min"], policy.constants["rate_max"]


def test_unset_rates_are_multiples_of_the_runs_and_set_ones_stay() -> None:
    policy = FedQSPolicy(rate_max=0.5)
    policy.train_with(TrainSettings(learning_rate=0.5))
    assert in_force(policy) == (0.01, 0.005, 0.5)
    policy.train_with(TrainSettings(learning_rate=0.25))
    assert in_force(policy) == (0.005, 0.0025, 0.5)


def test_at_a_tenth_they_are_the_numbers_of_the_authors_code_to_the_last_bit() -> None:
    policy = FedQSPolicy()
    policy.train_with(TrainSettings(learning_rate=0.1))
    assert in_force(policy) == (0.002, 0.001, 0.2)


def test_orders_that_were_given_keep_the_numbers_that_were_in_force() -> None:
    policy = FedQSPolicy()
    sent = policy.constants
    policy.train_with(TrainSettings(learning_rate=1.0))
    assert sent["rate_max"] == 0.2
    assert policy.most(TrainSettings(learning_rate=1.0))[0] == policy.constants["rate_max"] == 2.0


def test_a_chosen_rate_of_one_is_not_cut_at_the_first_typed_job(tmp_path: Path) -> None:
    run(Experiment.load(overrides=SMALL), tmp_path, pictures=False)
    updates = pq.read_table(tmp_path / "updates.parquet").to_pylist()
    assert not any(update["rejected"] for update in updates)
    rates = [update["learning_rate"] for update in updates if update["client_type"] not in ("", "FBC")]
    assert len(rates) > 5
    # A typed job changes the rate by a F, which is at most 0.18; the authors' bound would have cut each to 0.2.
    assert all(0.5 < rate <= 2.0 for rate in rates)
    assert any(rate > 1.0 for rate in rates)


def test_bounds_that_cross_are_refused_where_one_follows_from_the_learning_rate() -> None:
    with pytest.raises(ConfigError, match=r"rate_min = 0.5 is above rate_max = 0.2, as .* unset and so 2 times"):
        Experiment.load(overrides=["strategy.rate_min=0.5"])
    Experiment.load(overrides=["strategy.rate_min=0.5", "training.learning_rate=1.0"])
    with pytest.raises(ConfigError, match=r"rate_min = 0.5 is above rate_max = 0.3"):
        Experiment.load(overrides=["strategy.rate_min=0.5", "strategy.rate_max=0.3"])


@pytest.mark.parametrize(
    ("strategy", "section", "recorded"),
    [
        ("strategy.name=fedqs", "strategy", "3d3c81968ba5c686"),
        ("strategy.policy.name=fedqs", "strategy.policy", "cc6fd1f56e02a239"),
    ],
)
def test_the_digest_is_that_of_the_numbers_in_force(strategy: str, section: str, recorded: str) -> None:
    # Recorded when the numbers were absolute, at a learning rate of 1.
    given = [strategy] if section == "strategy" else ["strategy.name=custom", strategy]
    absolute = [line.replace("strategy", section) for line in ABSOLUTE]

    def digest(*overrides: str) -> str:
        return Experiment.load(overrides=[*given, *overrides]).digest

    assert digest(*absolute, "training.learning_rate=1.0") == recorded
    assert digest("training.learning_rate=1.0") != recorded
    assert digest() == digest(*absolute)


def test_presets_and_studies_of_the_authors_code_set_its_numbers() -> None:
    strategy = Experiment.load(preset="fedqs-reference", overrides=["training.learning_rate=1.0"]).tables["strategy"]
    assert [strategy[name] for name in ("a", "rate_min", "rate_max")] == [0.002, 0.001, 0.2]
