"""Every strategy with every model: it runs, or it is refused before anything is written, with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedmtl.components import options_of
from fedmtl.errors import ConfigError
from fedmtl.models import MODELS
from simulations import Experiment, run
from strategies.recipes.catalogue import STRATEGIES

IMAGES = ["data.source=digits", 'tasks.names=["digit","ink"]']
TEXT = [
    "data.source=files",
    'data.targets={next="classification:3",ink="regression"}',
    'data.features=["letters"]',
    "data.tokens=true",
    "data.partition=iid",
]
VARIANTS = {
    "linear": IMAGES,
    "mlp": [*IMAGES, "model.hidden=[16,12]"],
    "mlp, batch norm": [*IMAGES, "model.hidden=[16,12]", "model.norm=batch", "model.out_norm=batch"],
    "lenet": [*IMAGES, "model.channels=[2,4]", "model.hidden=[12]"],
    "lenet, batch norm": [*IMAGES, "model.channels=[2,4]", "model.hidden=[12]", "model.norm=batch"],
    "resnet18": [*IMAGES, "model.width=2", "model.groups=2"],
    "resnet18, batch norm": [*IMAGES, "model.width=2", "model.norm=batch", "model.out_norm=batch"],
    "lstm": [*TEXT, "model.vocabulary=10", "model.hidden=8"],
}
REFUSED = {
    ("fedgela", "linear"): "without a backbone",
    ("dimat", "resnet18"): r"units can be matched.*strategy\.match = 'none'",
    ("dimat", "resnet18, batch norm"): r"units can be matched.*strategy\.match = 'none'",
    ("dimat", "lstm"): r"units can be matched.*strategy\.match = 'none'",
    ("fal", "lstm"): "tokens have no neighbourhood",
}
SHORT = {"q_max": 10, "attack_steps": 1}
PAIRS = [
    pytest.param(strategy, model, marks=() if model in ("linear", "mlp", "lstm") else pytest.mark.slow)
    for model in VARIANTS
    for strategy in STRATEGIES
]


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of six letters."""
    path = tmp_path_factory.mktemp("text") / "words.npz"
    generator = np.random.default_rng(0)
    letters = generator.integers(0, 10, (161, 6))
    np.savez(path, letters=letters, next=letters[:, 0] % 3, ink=letters.mean(1).astype(np.float32))
    return path


def experiment(strategy: str, model: str, text: Path, *overrides: str) -> Experiment:
    known = {option.name for option in options_of(STRATEGIES[strategy])}
    return Experiment.load(
        None,
        [
            "data.clients=4",
            "stop.updates=8",
            "records.evaluate_every=2",
            "records.checkpoint_every=1000",
            "training.epochs=1",
            "training.batch_size=128",
            "balancing.name=equal",
            f"strategy.name={strategy}",
            f"model.name={model.partition(',')[0]}",
            *VARIANTS[model],
            *([f"data.path={text}"] if model == "lstm" else ()),
            *(f"strategy.{name}={value}" for name, value in SHORT.items() if name in known),
            *overrides,
        ],
    )


def test_all_models_of_the_catalogue_are_walked() -> None:
    assert {model.partition(",")[0] for model in VARIANTS} == set(MODELS)


@pytest.mark.parametrize(("strategy", "model"), PAIRS)
def test_a_strategy_trains_a_model_or_is_refused_before_the_run(
    tmp_path: Path, text: Path, strategy: str, model: str
) -> None:
    directory = tmp_path / "run"
    if reason := REFUSED.get((strategy, model)):
        with pytest.raises(ConfigError, match=reason):
            run(experiment(strategy, model, text), directory, pictures=False)
        assert not directory.exists()
        return
    result = run(experiment(strategy, model, text), directory, pictures=False)
    assert result.summary["updates"]["applied"] + result.summary["updates"]["unsettled"] >= 8
    assert result.summary["updates"]["rejected"] == 0
    values = load_file(directory / "model.safetensors").values()
    assert all(torch.isfinite(value).all() for value in values)


@pytest.mark.parametrize("model", ["mlp", "mlp, batch norm"])
def test_fedgela_keeps_its_classifier_beneath_batch_norm_as_without(tmp_path: Path, text: Path, model: str) -> None:
    found = experiment("fedgela", model, text, "training.momentum=0.5", "training.weight_decay=0.01")
    run(found, tmp_path / "run", pictures=False)
    start, layout = found.new_strategy().model, found.layout
    sent = dict(zip((entry.name for entry in layout.entries), layout.views(start.vector), strict=True))
    trained = load_file(tmp_path / "run" / "model.safetensors")
    for name, value in sent.items():
        assert torch.equal(trained[name], value) is name.startswith("heads.digit.")


def test_a_batch_of_one_example_is_no_trouble_for_batch_norm(tmp_path: Path, text: Path) -> None:
    found = experiment("fedavg", "mlp, batch norm", text, "training.batch_size=1", "stop.updates=4")
    assert run(found, tmp_path / "run", pictures=False).summary["updates"]["rejected"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lenet", "resnet18"])
def test_fedats_clients_may_decay_their_convolutions_in_place_of_a_proximal_term(
    tmp_path: Path, text: Path, model: str
) -> None:
    found = {}
    for name, options in {
        "nothing": ["strategy.proximal=0"],
        "no decay": ["strategy.local=l2_conv", "strategy.l2=0"],
        "decay": ["strategy.local=l2_conv"],
    }.items():
        run(experiment("fedat", model, text, *options), tmp_path / name, pictures=False)
        found[name] = load_file(tmp_path / name / "model.safetensors")
    same = {key: torch.equal(found["nothing"][key], found["no decay"][key]) for key in found["nothing"]}
    assert all(same.values())
    weights = [key for key, value in found["decay"].items() if value.dim() == 4]
    assert sum(found["decay"][key].square().sum() for key in weights) < sum(
        found["nothing"][key].square().sum() for key in weights
    )


def test_a_decay_of_convolutions_that_are_not_there_is_refused(text: Path) -> None:
    with pytest.raises(ConfigError, match=r"l2_conv.*does nothing in a model without them.*'lenet'"):
        experiment("fedat", "mlp", text, "strategy.local=l2_conv").new_strategy()


@pytest.mark.slow
@pytest.mark.parametrize("match", ["activations", "weights", "none"])
@pytest.mark.parametrize("start", ["one", "own"])
@pytest.mark.parametrize("model", [*VARIANTS])
def test_dimat_merges_any_model_as_it_is_and_matches_chains(
    tmp_path: Path, text: Path, match: str, start: str, model: str
) -> None:
    found = experiment("dimat", model, text, f"strategy.match={match}", f"strategy.start={start}", "stop.versions=2")
    if match != "none" and ("dimat", model) in REFUSED:
        with pytest.raises(ConfigError, match="units can be matched"):
            found.new_strategy()
        return
    assert run(found, tmp_path / "run", pictures=False).ended == "2 versions were made"


def test_whose_examples_statistics_are_measured_on_matters_only_where_there_are_any(tmp_path: Path, text: Path) -> None:
    with pytest.raises(ConfigError, match="'shared' is for models with batch norm"):
        experiment("dimat", "mlp", text, "strategy.bn_data=shared").new_strategy()
    found = []
    for bn_data in ("private", "shared"):
        chosen = experiment("dimat", "mlp, batch norm", text, f"strategy.bn_data={bn_data}")
        assert bool(chosen.new_strategy().only_simulated) is (bn_data == "shared")
        run(chosen, tmp_path / bn_data, pictures=False)
        found.append(load_file(tmp_path / bn_data / "model.safetensors"))
    assert not all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_real_clients_are_not_asked_for_examples_of_others(text: Path) -> None:
    from simulations.flower.server_app import _refuse_simulated_only

    _refuse_simulated_only(experiment("dimat", "mlp, batch norm", text))
    with pytest.raises(ConfigError, match="examples of all clients, which no real client has"):
        _refuse_simulated_only(experiment("dimat", "mlp, batch norm", text, "strategy.bn_data=shared"))
