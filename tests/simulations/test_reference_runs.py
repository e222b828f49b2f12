"""Runs with the faults of FedQS's reference: they happen, can be cut, and are refused where they make no sense."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedmtl.errors import ConfigError, DataError
from fedmtl.protocol import Aggregation
from simulations import Experiment, run
from simulations.presets import preset_tables
from simulations.runner import simulated_fleet
from simulations.studies.file import load_study
from strategies.core.loop import Loop, Observer
from tests.interrupting import InterruptAt

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("data.clients=12", "data.alpha=0.2", "devices.ratio=6", "devices.startup=1", "model.name=linear"),
    *("balancing.name=equal", "training.batch_size=40", "training.epochs=1", "stop.versions=12"),
    *("strategy.buffer_size=4", "records.evaluate_every=4"),
]
_PRESET = preset_tables("fedqs-reference")["strategy"]
REF = [
    *(f"strategy.{key}={str(_PRESET[key]).lower()}" for key in sorted(_PRESET.keys() - {"buffer_size", "aggregation"})),
    "training.tiny_clients=ref_drop_last",
]
"""Every fault of the authors' code, at the size and in the mode of a test."""


class Seen(Observer):
    """The updates that were applied."""

    def __init__(self) -> None:
        self.updates: list = []

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.updates += aggregation.updates


def played(*given: str) -> tuple[Loop, list]:
    experiment, seen = Experiment.load(None, [*SMALL, *given]), Seen()
    loop = Loop(experiment.new_strategy(), simulated_fleet(experiment), [seen])
    versions = experiment.config.stop.versions
    try:
        loop.run(lambda loop: "done" if loop.strategy.model.version >= versions else None)
    finally:
        loop.fleet.close()
    assert loop.strategy.model.version >= versions
    return loop, seen.updates


def vector(*given: str) -> torch.Tensor:
    return played(*given)[0].strategy.model.vector


@pytest.fixture(scope="module")
def vector_once() -> Callable[..., torch.Tensor]:
    """Gives the model of a run that is made once, however many tests look at it."""
    return functools.cache(vector)


def tiny() -> set[int]:
    sizes = Experiment.load(None, SMALL).data.shards.sizes
    small = {client for client, size in enumerate(sizes.tolist()) if size < 40}
    assert 0 < len(small) < 12
    return small


def test_small_clients_can_be_left_out() -> None:
    _, updates = played("training.tiny_clients=skip_client")
    assert not {update.client for update in updates} & tiny()
    assert {update.client for update in updates} == set(range(12)) - tiny()


def test_small_clients_that_drop_their_only_batch_are_counted_and_change_nothing() -> None:
    loop, updates = played("training.tiny_clients=ref_drop_last")
    idle = [update for update in updates if update.steps == 0]
    assert {update.client for update in idle} == tiny()
    assert all(update.delta.abs().max() == 0 for update in idle)
    assert all((update.steps > 0) == (update.client not in tiny()) for update in updates)
    assert sum(loop.strategy.ledger.aggregated.values()) == len(updates)
    assert loop.rejected == 0


@pytest.mark.parametrize("rule", ["skip_client", "ref_drop_last"])
def test_data_of_which_nobody_has_a_whole_batch_are_refused(rule: str) -> None:
    experiment = Experiment.load(None, [*SMALL, f"training.tiny_clients={rule}", "training.batch_size=500"])
    with pytest.raises(DataError, match="no client that owns task 'digit' has 500 training examples"):
        _ = experiment.data


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("fednova", "divided by the work that it took"),
        ("scaffold", "divided by its steps"),
        ("oort", "has no first losses"),
    ],
)
def test_jobs_without_a_step_are_refused_to_those_that_count_on_steps(strategy: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"needs 'local-steps', which none of them has; .*{reason}"):
        Experiment.load(None, [f"strategy.name={strategy}", "training.tiny_clients=ref_drop_last"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "given"),
    [
        ("strategy.updates=ref_overwrite", []),
        ("strategy.updates=ref_overwrite", ["strategy.aggregation=model"]),
        ("strategy.updates=ref_overwrite", ["strategy.name=fedsgd"]),
        ("strategy.updates=ref_overwrite", ["strategy.name=fedavg-safl"]),
        ("strategy.carry_meta=global_arrays", []),
        ("strategy.similarity=ref_tensors", []),
        ("strategy.lg_source=ref_previous_model", []),
        ("strategy.sbc_data=train20", ["strategy.spread=85", "training.epochs=2"]),
        ("training.tiny_clients=ref_drop_last", []),
        ("training.tiny_clients=skip_client", []),
        ("strategy.tick_order=client", ["strategy.clock=tick"]),
        (REF, []),
        (REF, ["strategy.aggregation=model"]),
    ],
    ids=str,
)
def test_each_fault_changes_a_run_and_the_same_run_comes_out_again(
    vector_once: Callable[..., torch.Tensor], fault: str | list[str], given: list[str]
) -> None:
    given, faults = ["stop.versions=30", *given], [fault] if isinstance(fault, str) else fault
    changed = vector(*given, *faults)
    assert torch.isfinite(changed).all()
    assert not torch.equal(changed, vector_once(*given))
    assert torch.equal(changed, vector(*given, *faults))


def test_the_preset_without_its_faults_is_the_plain_strategy_to_the_bit() -> None:
    """Every option that the preset sets, set back."""
    usual = [
        *("momentum=true", "phi=0.25", "weight_base=uniform", "similarity=angle", "lg_source=previous"),
        *("carry_meta=with_update", "sbc_data=holdout", "updates=snapshot", "buffer=drain", "clock=event"),
        *("tick_order=sent", "bn_buffers=as_parameters"),
    ]
    back = [f"strategy.{option}" for option in usual]
    set_back = vector(*REF, *back, "training.tiny_clients=keep_last_batch")
    assert torch.equal(set_back, vector("strategy.phi=0.25"))


@pytest.mark.parametrize("aggregation", ["gradient", "model"])
def test_a_run_with_all_faults_goes_on_to_the_same_bits_after_an_interruption(aggregation: str, tmp_path: Path) -> None:
    def experiment() -> Experiment:
        return Experiment.load(None, [*SMALL, *REF, f"strategy.aggregation={aggregation}"])

    run(experiment(), tmp_path / "whole", pictures=False)
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    for event in (3, 17, 30):
        cut = tmp_path / f"cut {event}"
        assert run(experiment(), cut, pictures=False, observers=[InterruptAt(event)]).interrupted
        assert not run(experiment(), cut, resume=True, pictures=False).interrupted
        assert all(torch.equal(tensor, whole[name]) for name, tensor in load_file(cut / "model.safetensors").items())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (REF, "what clients have not sent yet: real clients cannot be asked for it"),
        (["strategy.carry_meta=global_arrays"], "real clients cannot be asked for it"),
        (["training.tiny_clients=skip_client"], "'skip_client' leaves clients out, and real ones cannot be kept idle"),
    ],
)
def test_real_clients_are_not_asked_for_what_only_a_simulation_can_do(given: list[str], reason: str) -> None:
    from simulations.flower.server_app import _refuse_simulated_only

    with pytest.raises(ConfigError, match=reason):
        _refuse_simulated_only(Experiment.load(None, [*SMALL, *given]))


NORM = ["model.name=mlp", "model.hidden=[8]", "model.norm=batch"]


def statistics(loop: Loop) -> torch.Tensor:
    model = loop.strategy.model
    return model.vector[model.layout.buffers]


def test_batch_norm_statistics_follow_their_rule() -> None:
    """Kept, they are those of the start; averaged, they are not what adding updates makes of them, but like models'."""
    start = Experiment.load(None, [*SMALL, *NORM]).initial
    rules = ("as_parameters", "average", "keep_server")
    made = {rule: played(*NORM, f"strategy.bn_buffers={rule}")[0] for rule in rules}
    assert torch.equal(statistics(made["keep_server"]), start.vector[start.layout.buffers])
    assert not torch.equal(statistics(made["average"]), statistics(made["as_parameters"]))
    assert not torch.equal(statistics(made["average"]), statistics(made["keep_server"]))


def test_where_models_are_averaged_so_are_their_statistics() -> None:
    given = [*NORM, "strategy.aggregation=model", "stop.versions=3"]
    as_parameters = vector(*given)
    # Sums in another order: float32 rounding over three steps, which training carries on.
    torch.testing.assert_close(vector(*given, "strategy.bn_buffers=average"), as_parameters, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["average", "keep_server"])
def test_without_batch_norm_the_rule_of_its_statistics_has_no_effect(rule: str) -> None:
    assert torch.equal(vector(f"strategy.bn_buffers={rule}"), vector())


def test_the_study_of_each_fault_is_made_of_experiments_that_differ() -> None:
    cells = load_study(ROOT / "simulations/studies/fedqs-reference.toml").cells()
    experiments = [Experiment.load(None, tables=cell.tables) for cell in cells if cell.seed == 0]
    assert len(experiments) == len({experiment.digest for experiment in experiments}) == 24


@pytest.mark.slow("ray")
def test_on_ray_overwritten_updates_are_those_of_an_inline_run() -> None:
    ray = ["engine.workers=ray", "engine.count=1"]
    assert torch.equal(vector(*REF, *ray), vector(*REF))
