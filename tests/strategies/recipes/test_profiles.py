"""Profiles: what they stand for, and that an option that is set counts for more."""

from __future__ import annotations

import pytest

from fedmtl.components import options_of
from fedmtl.errors import ConfigError
from simulations import Experiment
from strategies.aggregators import NewestMeta, Overwritten
from strategies.core.part import parts_within
from strategies.recipes.catalogue import STRATEGIES, build_strategy, strategy_options, training_options
from strategies.recipes.fedqs import fedqs
from strategies.recipes.papers import method_of
from strategies.schedulers import Buffered

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
}


def test_ref_brings_back_every_fault_and_leaves_the_rest_alone() -> None:
    paper, ref = strategy_options("fedqs", {}), strategy_options("fedqs", {"profile": "ref"})
    assert {key: ref[key] for key in CODE} == CODE
    others = ref.keys() - CODE.keys() - {"profile"}
    assert {key: ref[key] for key in others} == {key: paper[key] for key in others}


def test_the_profile_is_also_there_for_who_calls_the_recipe() -> None:
    strategy = fedqs(profile="ref")
    assert isinstance(strategy.scheduler, Buffered)
    assert strategy.scheduler.tick_order == "client"
    inside = {type(part) for part in parts_within(strategy.aggregator)}
    assert {Overwritten, NewestMeta} <= inside
    assert strategy.policy.constants["similarity"] == "ref_tensors"
    assert not strategy.policy.constants["adapt_momentum"]


def test_an_option_that_is_set_counts_for_more() -> None:
    options = strategy_options("fedqs", {"profile": "ref", "updates": "snapshot", "weight_base": "uniform"})
    assert (options["updates"], options["weight_base"], options["momentum"]) == ("snapshot", "uniform", False)


def test_written_out_options_stay_as_they_are() -> None:
    """A run's directory holds every option; to build from it once more changes nothing."""
    once = strategy_options("fedqs", {"profile": "ref", "buffer": "drain"})
    given = {key: value for key, value in once.items() if value is not None}
    assert strategy_options("fedqs", given) == once


def test_paper_is_what_is_there_without_a_profile() -> None:
    assert strategy_options("fedqs", {"profile": "paper"}) == strategy_options("fedqs", {})


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match="'paper' or 'ref'"):
        build_strategy("fedqs", {"profile": "reff"})


def test_a_recipe_with_a_profile_keeps_its_method_and_its_options() -> None:
    assert method_of(fedqs).arxiv == "2510.07664"
    assert {"profile", "updates", "carry_meta"} <= {option.name for option in options_of(fedqs)}


def test_no_other_strategy_says_anything_of_training() -> None:
    assert {name: said for name in STRATEGIES if (said := training_options(name, {"profile": "ref"}))} == {
        "fedqs": {"tiny_clients": "ref_drop_last"}
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "keep_last_batch"),
        (["strategy.profile=ref"], "ref_drop_last"),
        (["strategy.profile=ref", "training.tiny_clients=keep_last_batch"], "keep_last_batch"),
        (["strategy.profile=ref", "training.tiny_clients=skip_client"], "skip_client"),
    ],
)
def test_an_experiment_drops_short_batches_with_the_profile_unless_it_says_otherwise(
    given: list[str], expected: str
) -> None:
    experiment = Experiment.load(None, ["data.clients=10", *given])
    assert experiment.tables["training"]["tiny_clients"] == expected
    assert experiment.settings.tiny_clients == experiment.new_strategy().settings.tiny_clients == expected
    assert Experiment.load(None, tables=experiment.tables).digest == experiment.digest
