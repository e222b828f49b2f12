"""Digests: what was recorded once is found again, and whatever decides a result counts."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fedmtl.checkpoint import load_checkpoint, save_checkpoint
from fedmtl.errors import CheckpointError
from fedmtl.results import RESULTS
from simulations import Experiment, digests

RUNS = tomllib.loads((Path(__file__).parents[2] / "tools" / "same_bits_runs.toml").read_text(encoding="utf-8"))["runs"]


def digest_of(*overrides: str) -> str:
    return Experiment.load(overrides=overrides).digest


@pytest.mark.parametrize(
    ("run", "recorded"),
    [
        ("fedqs", "bf3d0933e6fabd32"),
        ("ca2fl", "84f6e10e12e26ed7"),
        ("fedavg-krum", "ed9044f9588338f7"),
        ("custom-robust", "5a5bff912f7dfe49"),
        ("fedcompass", "23a857ead54dee5c"),
        ("dimat", "42eb44f29ce4ae02"),
        ("custom-synchronous", "d908159f109403f3"),
        ("custom-nested", "5661399aa856d8b2"),
    ],
)
def test_recorded_digests_stay(run: str, recorded: str) -> None:
    # Recorded before recipes took the options of their parts, and selectors options of their own.
    assert Experiment.load(tables=RUNS[run]).digest == recorded


def test_the_digest_of_the_main_job_stays() -> None:
    assert digest_of() == "b4db67fe6e46726d"


@pytest.mark.parametrize(
    "different",
    [
        ("seed=1",),
        ("data.alpha=0.2",),
        ("data.clients=99",),
        ("tasks.ownership=random",),
        ("model.hidden=[64]",),
        ("devices.ratio=49",),
        ("strategy.buffer_size=9",),
        ("strategy.max_staleness=3",),  # newer than the record
        ("strategy.aggregator=median",),
        ("balancing.clip=1.0",),
        ("training.momentum=0.5",),
    ],
)
def test_what_decides_a_result_changes_the_digest(different: tuple[str, ...]) -> None:
    assert digest_of(*different) != digest_of()


@pytest.mark.parametrize(
    "same",
    [
        *("name=other", "engine.workers=ray", "stop.versions=3", "records.baselines=true"),
        "stop.diverged=true",
        'records.pictures=["svg"]',
    ],
)
def test_what_only_keeps_shows_or_ends_does_not(same: str) -> None:
    assert digest_of(same) == digest_of()


def test_a_newer_key_enters_only_where_it_is_set_to_something_else() -> None:
    custom = "strategy.name=custom", "strategy.scheduler.name=synchronous", "strategy.scheduler.clients_per_round=5"
    oort = (*custom, "strategy.scheduler.selection.name=oort")
    assert "max_staleness" not in digests.entering(Experiment.load().tables)["strategy"]
    assert digest_of("strategy.max_staleness=3") != digest_of("strategy.max_staleness=4")
    usual = Experiment.load(overrides=oort)
    assert digests.entering(usual.tables)["strategy"]["scheduler"]["selection"] == "oort"
    other = Experiment.load(overrides=[*oort, "strategy.scheduler.selection.exploration=0.5"])
    assert digests.entering(other.tables)["strategy"]["scheduler"]["selection"] == {"name": "oort", "exploration": 0.5}


def test_a_key_that_is_gone_enters_with_the_default_that_it_had() -> None:
    assert digests.entering(Experiment.load().tables)["strategy"]["profile"] == "paper"


def test_a_newer_section_enters_only_if_something_in_it_is_set() -> None:
    tables = Experiment.load().tables
    assert digests.entering({**tables, "newer": {}}) == digests.entering(tables)
    assert digests.entering({**tables, "newer": {"key": 1}})["newer"] == {"key": 1}


def test_a_checkpoint_of_other_results_is_refused_by_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmtl.checkpoint.RESULTS", RESULTS - 1)
    save_checkpoint(tmp_path, {}, "digest")
    monkeypatch.setattr("fedmtl.checkpoint.RESULTS", RESULTS)
    with pytest.raises(CheckpointError, match=f"an older FedMTL.*results is {RESULTS - 1}, this version's {RESULTS}"):
        load_checkpoint(tmp_path, "digest")


def test_a_key_that_became_unset_enters_with_what_is_in_force() -> None:
    # FedQS added up statistics like parameters; now it averages them, which is nothing to models without.
    assert digest_of() == digest_of("strategy.bn_buffers=as_parameters")
    assert digest_of("model.norm=batch") != digest_of("model.norm=batch", "strategy.bn_buffers=as_parameters")
    # NTKMTL's bound of the weights was 50 for every exponent, and is none above 0.5.
    assert digest_of() == digest_of("balancing.w_max=50.0") != digest_of("balancing.w_max=0.0")
    steep = "balancing.exponent=1.0"
    assert digest_of(steep) == digest_of(steep, "balancing.w_max=0.0") != digest_of(steep, "balancing.w_max=50.0")
    # DB-MTL's heads followed their losses, and follow the logarithms now.
    heads = {
        rule: digest_of("balancing.name=db-mtl", f"balancing.head_weight={rule}") for rule in ("log", "unweighted")
    }
    assert digest_of("balancing.name=db-mtl") == heads["log"] != heads["unweighted"] == "6d01941f021f62f9"


def test_options_that_mgda_has_no_more_are_in_its_digest_as_they_were() -> None:
    assert digest_of("balancing.name=mgda") == "a4caa26900a90341"
