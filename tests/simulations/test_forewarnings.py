"""What can be known of a run's length is said before it, with numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from flwr.serverapp import Grid

from fedmtl.errors import ConfigError
from simulations import Experiment, run
from simulations.flower.server_app import fleet_on
from simulations.forewarnings import forewarnings
from strategies.core.loop import Loop, Observer

SMALL = ["data.clients=10", "model.name=linear", "balancing.name=equal", "stop.versions=2"]


def said(*overrides: str) -> list[str]:
    experiment = Experiment.load(None, [*SMALL, *overrides])
    return list(forewarnings(experiment, experiment.new_strategy()))


@pytest.mark.parametrize("name", ["fedqs", "fedbuff", "fadas", "defedavg", "wkafl"])
def test_a_buffer_that_will_not_fill_is_said_with_its_updates_and_memory(name: str) -> None:
    (warning,) = said(f"strategy.name={name}", "strategy.buffer_size=1_000_000", "data.clients=10")
    size = Experiment.load(None, SMALL).layout.size
    memory = f"{4 * size * 1_000_000 / 1e9:,.3g} GB"
    assert f"waits for 1,000,000 updates, 100,000 from each of 10 clients, and keeps {memory} of them" in warning
    assert "lower strategy.buffer_size" in warning


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy.name=fedavg", "strategy.clients_per_round=200"], "clients_per_round = 200: there are only 10"),
        (
            ["strategy.name=fedavg", "strategy.clients_per_round=200", "strategy.over_commit=1.3"],
            "clients_per_round = 200: there are only 10",
        ),
        (
            ["strategy.name=fedavg", "strategy.clients_per_round=9", "strategy.over_commit=1.5"],
            "over_commit asks more than answer: clients asked for a round = 14: there are only 10",
        ),
        (["strategy.name=fedat", "strategy.tiers=11"], "tiers = 11: there are only 10"),
        (["strategy.name=fedat", "strategy.clients_per_round=11"], "clients_per_round = 11: there are only 10"),
        (["strategy.name=safa", "strategy.buffer_size=11"], "buffer_size = 11: there are only 10"),
        (["strategy.name=fedbuff", "strategy.concurrency=11"], "concurrency = 11: there are only 10"),
        (["strategy.name=fedasync", "strategy.concurrency=11"], "concurrency = 11: there are only 10"),
        (["strategy.name=fedcompass", "strategy.q_max=1_000_000"], "q_max = 1,000,000: one order may be so many"),
        (["strategy.name=fedqueue", "strategy.max_steps=1_000_000"], "max_steps = 1,000,000: one order may be so many"),
        (["strategy.name=fedbuff", "strategy.buffer_size=20", "stop.updates=19"], "ends the run before its first"),
    ],
)
def test_what_an_option_comes_to_with_few_clients_is_said(overrides: list[str], message: str) -> None:
    (warning,) = said(*overrides)
    assert message in warning


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["strategy.name=fedavg"],
        ["strategy.name=fedavg", "strategy.clients_per_round=10"],
        ["strategy.name=fedavg", "strategy.clients_per_round=5", "strategy.over_commit=2.0"],
        ["strategy.name=fedat"],
        ["strategy.name=fedbuff", "strategy.buffer_size=1000", "strategy.concurrency=10"],
        ["strategy.name=fedbuff", "strategy.buffer_size=20", "stop.updates=20"],
        ["strategy.name=fedcompass"],
        ["strategy.name=fedqueue"],
        ["strategy.name=safa"],
    ],
)
def test_usual_experiments_are_not_remarked_on(overrides: list[str]) -> None:
    assert not said(*overrides)


class InterruptAtOnce(Observer):
    def on_start(self, loop: Loop) -> None:
        loop.interrupt()


def test_a_run_says_it_once_before_it_begins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    experiment = Experiment.load(None, [*SMALL, "strategy.name=fedavg", "strategy.clients_per_round=200"])
    with caplog.at_level(logging.WARNING):
        assert run(experiment, tmp_path / "run", pictures=False, observers=[InterruptAtOnce()]).interrupted
        run(experiment, tmp_path / "run", pictures=False, resume=True)
    assert caplog.text.count("clients_per_round = 200: there are only 10 clients") == 1


class Deserted(Grid):
    run = set_run = create_message = push_messages = pull_messages = send_and_receive = None  # type: ignore[assignment]

    def get_node_ids(self) -> list[int]:
        return []


def test_a_deployment_that_waits_for_more_clients_than_there_are_is_refused() -> None:
    experiment = Experiment.load(None, SMALL)
    with pytest.raises(ConfigError, match=r"clients = 11: the run would wait for more clients than the 10 that"):
        fleet_on(Deserted(), experiment, {"clients": 11})
