"""Presets: what they stand for, that they run, and that what is set beside one counts for more."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from fedmtl.errors import ConfigError
from simulations import Experiment
from simulations.presets import preset_file, preset_tables, presets
from simulations.runner import simulated_fleet
from simulations.studies.file import load_study, study_file
from strategies.aggregators import NewestMeta, Overwritten
from strategies.core.loop import Loop
from strategies.core.part import parts_within
from strategies.recipes.catalogue import build_strategy, strategy_options
from strategies.schedulers import Buffered

_PRESET = preset_tables("fedqs-reference")["strategy"]
THEIRS = {key: value for key, value in _PRESET.items() if key not in ("name", "buffer_size", "aggregation")}
"""Every fault of the authors' code, at the size and in the mode of a test."""

CODE = {
    "weight_base": "data_size",
    "momentum": False,
    "phi": 0.1,
    "similarity": "ref_tensors",
    "lg_source": "ref_previous_model",
    "carry_meta": "global_arrays",
    "sbc_data": "train20",
    "bn_buffers": "as_parameters",
    "updates": "ref_overwrite",
    "buffer": "one_per_tick",
    "clock": "tick",
    "tick_order": "client",
    "a": 0.002,
    "rate_min": 0.001,
    "rate_max": 0.2,
}


def test_the_reference_brings_back_every_fault_and_leaves_the_rest_alone() -> None:
    assert THEIRS == CODE
    options = Experiment.load(preset="fedqs-reference").tables["strategy"]
    paper = Experiment.load(None, ["strategy.buffer_size=2"]).tables["strategy"]
    others = options.keys() - CODE.keys()
    assert {key: options[key] for key in others} == {key: paper[key] for key in others}
    assert not paper.keys() & {"a", "rate_min", "rate_max"}
    assert Experiment.load(preset="fedqs-reference").settings.tiny_clients == "ref_drop_last"


def test_the_reference_is_made_of_the_parts_with_the_faults() -> None:
    strategy = build_strategy("fedqs", THEIRS)
    assert type(strategy.scheduler) is Buffered
    inside = {type(part) for part in parts_within(strategy.aggregator)}
    assert {Overwritten, NewestMeta} <= inside
    assert strategy.policy.constants["similarity"] == "ref_tensors"
    assert not strategy.policy.constants["adapt_momentum"]


def test_the_reference_is_the_experiment_with_all_faults_of_its_study() -> None:
    cells = load_study(study_file(Path("fedqs-reference"))).cells()
    (cell,) = (c for c in cells if c.labels == {"fault": "all", "mode": "gradient"} and c.seed == 0)
    assert Experiment.load(tables=cell.tables).digest == Experiment.load(preset="fedqs-reference").digest


@pytest.mark.parametrize("name", presets())
def test_every_preset_says_what_it_is_and_can_run(name: str) -> None:
    first, *_ = preset_file(name).read_text().splitlines()
    assert presets()[name] == first.removeprefix("# ")
    assert len(first) > 40
    assert preset_tables(name)["name"] == name
    experiment = Experiment.load(None, ["stop.versions=2"], preset=name)
    loop = Loop(experiment.new_strategy(), simulated_fleet(experiment))
    try:
        loop.run(lambda loop: "done" if loop.strategy.model.version >= 2 else None)
    finally:
        loop.fleet.close()
    assert torch.isfinite(loop.strategy.model.vector).all()


def test_what_is_set_beside_a_preset_counts_for_more() -> None:
    given = ["strategy.updates=snapshot", "strategy.weight_base=uniform", "training.tiny_clients=keep_last_batch"]
    tables = Experiment.load(None, given, preset="fedqs-reference").tables
    strategy = tables["strategy"]
    assert (strategy["updates"], strategy["weight_base"], strategy["momentum"]) == ("snapshot", "uniform", False)
    assert tables["training"]["tiny_clients"] == "keep_last_batch"


def test_a_written_out_preset_is_the_same_experiment() -> None:
    """A run's directory holds every option; to build from it once more changes nothing."""
    experiment = Experiment.load(preset="fedqs-reference")
    assert Experiment.load(tables=experiment.tables).digest == experiment.digest
    assert Experiment.load(preset_file("fedqs-reference")).digest == experiment.digest


def test_a_preset_is_alone_and_known(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no preset 'fedqs-ref' \(did you mean 'fedqs-reference'\?\); known: .*fedqs"
    ):
        Experiment.load(preset="fedqs-ref")
    with pytest.raises(ConfigError, match="an experiment by itself: give no file and no tables"):
        Experiment.load(tmp_path / "mine.toml", preset="fedqs-reference")
    with pytest.raises(ConfigError, match="an experiment by itself: give no file and no tables"):
        Experiment.load(tables={}, preset="fedqs-reference")


@pytest.mark.parametrize("value", ["paper", "ref", "reff"])
def test_the_option_that_a_preset_replaced_is_refused_with_its_name(value: str) -> None:
    message = f"strategy.profile = '{value}' is no longer an option: leave it out.* fedmtl run --preset fedqs-reference"
    with pytest.raises(ConfigError, match=message):
        strategy_options("fedqs", {"profile": value})
    with pytest.raises(ConfigError, match="profile is not a key of 'fedbuff'"):
        strategy_options("fedbuff", {"profile": value})


def test_presets_and_studies_are_toml_files_that_begin_with_what_they_are() -> None:
    for folder in ("presets", "studies"):
        files = list((Path(__file__).parents[2] / "simulations" / folder).glob("*.toml"))
        assert files
        for file in files:
            assert file.read_text().startswith("# ")
            assert tomllib.loads(file.read_text())["name"] == file.stem
