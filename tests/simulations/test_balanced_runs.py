"""Every balancer in a run: refused where it cannot work, and learning where it can."""

import math
import sys

import pytest

from fedmtl.balancing import BALANCERS, build_balancer
from fedmtl.errors import ConfigError
from fedmtl.protocol import Balancing
from simulations import Experiment
from simulations.runner import run

SMALL = [
    *("data.clients=6", "strategy.name=fedbuff", "strategy.buffer_size=3", "stop.versions=3"),
    *("training.epochs=1", "training.batch_size=100"),
]


@pytest.mark.parametrize("name", BALANCERS)
def test_every_balancer_trains_clients_that_own_some_of_the_tasks(tmp_path, name):
    rate = 0.001 if name == "adatask" else 0.02
    overrides = [
        *SMALL,
        f"balancing.name={name}",
        "tasks.ownership=random",
        "records.evaluate_every=1",
        f"training.learning_rate={rate}",
    ]
    summary = run(Experiment.load(None, overrides), tmp_path / "run", pictures=False).summary
    assert summary["updates"]["rejected"] == 0
    assert summary["versions"] == 3
    assert all(math.isfinite(task["last"]) for task in summary["tasks"])


def test_a_batch_too_small_for_three_parts_is_refused_when_the_experiment_is_read():
    with pytest.raises(
        ConfigError, match=r"training.batch_size = 2: balancing.name = 'sdmgrad' cuts every batch into 3"
    ):
        Experiment.load(None, ["balancing.name=sdmgrad", "training.batch_size=2"])
    Experiment.load(None, ["balancing.name=sdmgrad", "training.batch_size=3"])


def test_options_that_do_not_fit_together_are_refused_when_the_experiment_is_read():
    with pytest.raises(ConfigError, match=r"set balancing.chunks to 2 or more"):
        Experiment.load(None, ["balancing.name=ntkmtl", "balancing.statistic=denoised"])


def test_without_torchjd_only_the_balancers_that_need_it_are_refused(monkeypatch):
    """That they are imported without it, test_imports.py shows."""
    for module in ("torchjd", *(name for name in sys.modules if name.startswith("torchjd."))):
        monkeypatch.setitem(sys.modules, module, None)
    refused = set()
    for name in BALANCERS:
        try:
            build_balancer(Balancing(name))
        except ConfigError as error:
            assert "pip install 'torchjd[" in str(error), error  # noqa: PT017 (one of many)
            refused.add(name)
    own = {"equal", "equal-probed", "ntkmtl", "ntkmtl-sr", "si"}
    own |= {"gradnorm", "mgda", "imgrad", "nash-mtl", "fairgrad", "adatask", "conicgrad", "db-mtl"}
    assert refused == set(BALANCERS) - own
