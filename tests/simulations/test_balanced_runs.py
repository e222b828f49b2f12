"""Every balancer in a run: refused where it cannot work, and learning where it can."""

import math
import subprocess
import sys

import pytest

from fedmtl.balancing import BALANCERS
from fedmtl.errors import ConfigError
from simulations import Experiment
from simulations.runner import run

SMALL = ["data.clients=6", "strategy.name=fedbuff", "strategy.buffer_size=3", "stop.versions=3", "training.epochs=1"]


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


WITHOUT_TORCHJD = """
import sys
sys.modules["torchjd"] = None
sys.modules["torchjd.aggregation"] = sys.modules["torchjd.scalarization"] = sys.modules["torchjd.linalg"] = None
from fedmtl.balancing import BALANCERS, build_balancer
from fedmtl.errors import ConfigError
from fedmtl.protocol import Balancing
refused = []
for name in BALANCERS:
    try:
        build_balancer(Balancing(name))
    except ConfigError as error:
        assert "pip install 'torchjd[" in str(error), error
        refused.append(name)
print(*refused)
"""


def test_without_torchjd_only_the_balancers_that_need_it_are_refused():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCHJD], check=True, text=True, stdout=subprocess.PIPE, timeout=120
    )
    own = {"equal", "equal-probed", "ntkmtl", "ntkmtl-sr", "si"}
    own |= {"gradnorm", "mgda", "imgrad", "nash-mtl", "fairgrad", "adatask", "conicgrad", "db-mtl"}
    assert set(done.stdout.split()) == set(BALANCERS) - own
