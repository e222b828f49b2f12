"""The experiment of a Flower run."""

from pathlib import Path

import pytest

from fedmtl.errors import ConfigError
from fedmtl.run_config import experiment_config

EXPERIMENT = """
seed = 5
[data]
clients = 8
"""


def test_the_experiment_is_toml_or_a_path(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(EXPERIMENT)
    for experiment in (EXPERIMENT, str(path)):
        config = experiment_config({"experiment": experiment})
        assert (config.data.clients, config.seed) == (8, 5)


def test_without_an_experiment_the_defaults_run() -> None:
    assert experiment_config({"experiment": "", "set": ""}) == experiment_config({})
    assert experiment_config({}).data.clients == 100


def test_overrides_stand_between_semicolons_or_on_lines() -> None:
    config = experiment_config({"experiment": EXPERIMENT, "set": "data.clients=4; stop.versions=7\nseed=6;"})
    assert (config.data.clients, config.stop.versions, config.seed) == (4, 7, 6)


@pytest.mark.parametrize(
    ("run_config", "message"),
    [
        ({"experiment": "seed = = 3"}, "'experiment' is not valid TOML"),
        ({"experiment": "nowhere.toml"}, r"cannot read nowhere\.toml"),
        ({"set": "data.clients"}, "write section.key=value"),
        ({"set": "dat.clients=3"}, "dat is not"),
    ],
)
def test_what_is_wrong_is_named(run_config: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment_config(run_config)
