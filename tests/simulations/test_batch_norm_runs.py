"""Batch norm in runs: statistics are means of what clients sent in every strategy, and no variance is below zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedmtl.components import options_of
from fedmtl.data.federated import FederatedData
from fedmtl.models import MODELS, MultiTaskModel
from simulations import Experiment, run
from strategies.core.loop import Loop, Observer
from strategies.recipes.catalogue import STRATEGIES

SMALL = [
    *("data.source=digits", "data.clients=6", "data.partition=iid", "devices.ratio=4", "records.evaluate_every=5"),
    *("training.epochs=1", "training.batch_size=100", "balancing.name=equal", "stop.versions=5"),
    *("model.hidden=[16]", "model.norm=batch"),
]
SHORT = {"q_max": 8, "max_steps": 20, "buffer_size": 3, "attack_steps": 1, "clients_per_round": 4, "gossip_steps": 1}
SHORT |= {"tiers": 2}

WITHOUT_SERVER = ("dfedsam", "dimat")
"""Clients have models of their own, whose mean is what is looked at."""

REMEMBERED = ("safa", "fedat")
"""What clients sent in earlier steps counts, too."""

OTHERS = {
    "fedqs, average": ["strategy.name=fedqs", "strategy.bn_buffers=average"],
    "fedqs, model": ["strategy.name=fedqs", "strategy.aggregation=model"],
    "fedqs, overwritten": ["strategy.name=fedqs", "strategy.updates=ref_overwrite"],
    "fedcompass, group mean": ["strategy.name=fedcompass", "strategy.statistics=group_mean", "strategy.q_max=8"],
    "fedcompass, momentum": ["strategy.name=fedcompass", "strategy.variant=momentum", "strategy.q_max=8"],
    "fedbuff, momentum": ["strategy.name=fedbuff", "strategy.server_momentum=0.9", "strategy.server_rate=3.0"],
    "fedbuff, long steps": ["strategy.name=fedbuff", "strategy.server_rate=5.0"],
    "scaffold, long steps": ["strategy.name=scaffold", "strategy.server_rate=2.5"],
    "median": ["strategy.name=fedavg", "strategy.aggregator=median"],
    "trimmed": ["strategy.name=fedavg", "strategy.aggregator=trimmed-mean"],
    "krum": ["strategy.name=fedavg", "strategy.aggregator=krum", "strategy.malicious=1"],
    "clipped": ["strategy.name=fedavg", "strategy.aggregator=dp-clip", "strategy.weight_base=uniform"],
    "random vectors": ["strategy.name=fedbuff", "compression.name=shared-randomness", "compression.coordinates=20"],
    "top entries": ["strategy.name=fedqs", "compression.name=top-entries"],
}


class Statistics(Observer):
    """What clients' statistics were, and what the server made of them."""

    def __init__(self, *, remembered: bool) -> None:
        self.remembered = remembered
        self.versions: dict[int, Tensor] = {}
        self.seen: list[Tensor] = []
        self.beyond: list[float] = []
        self.lowest: list[float] = []

    def on_start(self, loop: Loop) -> None:
        self._note(loop)
        self.seen = [self.versions[0]]

    def on_aggregation(self, loop: Loop, aggregation: Any) -> None:
        buffers = loop.strategy.model.layout.buffers
        sent = [self.versions[u.base_version] + u.delta[buffers] for u in aggregation.updates]
        self.seen = [*self.seen, *sent] if self.remembered else [self.versions[aggregation.version - 1], *sent]
        self._note(loop)
        least, largest = torch.stack(self.seen).amin(0), torch.stack(self.seen).amax(0)
        now = self.versions[aggregation.version]
        self.beyond.append(float(torch.maximum(least - now, now - largest).max()))

    def _note(self, loop: Loop) -> None:
        model = loop.strategy.model
        self.versions[model.version] = model.vector[model.layout.buffers].clone()
        self.lowest += [float(model.vector[variance].min()) for variance in model.layout.variances]


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return Experiment.load(None, SMALL).data


def watched(data: FederatedData, settings: list[str], directory: Path, *, remembered: bool = False) -> Statistics:
    experiment = Experiment.load(None, [*SMALL, *settings])
    experiment.__dict__["data"] = data  # made once for all
    statistics = Statistics(remembered=remembered)
    run(experiment, directory, pictures=False, observers=[statistics])
    assert len(statistics.versions) >= 6
    return statistics


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_statistics_are_means_of_those_that_clients_sent(tmp_path: Path, data: FederatedData, strategy: str) -> None:
    known = {option.name for option in options_of(STRATEGIES[strategy])}
    options = [f"strategy.{name}={value}" for name, value in SHORT.items() if name in known]
    remembered = strategy in REMEMBERED
    found = watched(data, [f"strategy.name={strategy}", *options], tmp_path / "run", remembered=remembered)
    assert min(found.lowest) >= 0.0
    if strategy not in WITHOUT_SERVER:
        # Sums that are kept up to date are rounded; all others are exact.
        assert max(found.beyond) <= (1e-5 if remembered else 0.0)


@pytest.mark.parametrize("case", OTHERS)
def test_so_they_are_whatever_the_rule_does_with_the_rest(tmp_path: Path, data: FederatedData, case: str) -> None:
    found = watched(data, OTHERS[case], tmp_path / "run")
    assert min(found.lowest) >= 0.0
    if case != "fedqs, overwritten":  # which applies what was not sent yet
        assert max(found.beyond) <= 0.0


def test_the_main_job_with_batch_norm_learns(tmp_path: Path) -> None:
    settings = ["model.norm=batch", "data.clients=10", "stop.versions=6", "records.evaluate_every=2"]
    run(Experiment.load(None, settings), tmp_path / "run", pictures=False)
    import pyarrow.parquet as pq

    rows = pq.read_table(tmp_path / "run" / "evaluations.parquet").to_pylist()
    errors = [row["value"] for row in rows if (row["task"], row["metric"], row["group"]) == ("ink", "mse", "test")]
    assert len(errors) == 4
    assert max(errors) < 2.0  # it was 6,104 at version 6


class Usual(nn.Module):
    """Torch's own norms, which refuse a batch of one example."""

    def __init__(self, inputs: int, norm: str) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, 6)
        self.norm = {
            "batch": lambda: nn.BatchNorm1d(6),
            "no statistics": lambda: nn.BatchNorm1d(6, track_running_stats=False),
            "group": lambda: nn.GroupNorm(6, 6),
            "pooled": lambda: nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.BatchNorm2d(6), nn.Flatten()),
        }[norm]()

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.norm(self.inner(inputs.flatten(1))))


@pytest.mark.parametrize("norm", ["batch", "no statistics", "group", "pooled"])
def test_a_batch_of_one_example_ends_no_run_of_a_users_own_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: FederatedData, norm: str
) -> None:
    def usual(input_shape: tuple[int, ...], tasks: Any) -> MultiTaskModel:
        return MultiTaskModel(Usual(64, norm), 6, tasks)

    monkeypatch.setitem(MODELS, "usual", usual)
    tables = [entry for entry in SMALL if not entry.startswith("model.")]
    settings = [*tables, "model.name=usual", "strategy.name=fedavg", "training.batch_size=1", "stop.versions=1"]
    experiment = Experiment.load(None, settings)
    experiment.__dict__["data"] = data
    assert run(experiment, tmp_path / "run", pictures=False).summary["updates"]["rejected"] == 0
