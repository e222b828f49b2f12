"""Every strategy is a Flower strategy: Flower's own calls run it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fedmtl.protocol import GlobalModel
from strategies.core.strategy import Strategy
from strategies.flower.messages import arrays_of, vector_of
from strategies.recipes.catalogue import STRATEGIES, build_strategy
from strategies.recipes.fedasync import fedasync
from strategies.recipes.fedavg import fedavg
from strategies.recipes.fedbuff import fedbuff
from strategies.recipes.fedcompass import fedcompass

Initialise = Callable[[Strategy], Strategy]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_a_flower_strategy(name: str) -> None:
    assert isinstance(build_strategy(name, {}), FlowerStrategy)


def test_start_makes_the_versions_asked_for_and_returns_flowers_result(
    grid: Any, initialised: Initialise, start: GlobalModel
) -> None:
    def evaluate_fn(version: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"norm": float(vector_of(arrays, start.layout).norm())})

    strategy = initialised(fedbuff(buffer_size=2))
    result = strategy.start(
        grid, arrays_of(start), num_rounds=4, timeout=60, evaluate_config=ConfigRecord(), evaluate_fn=evaluate_fn
    )
    assert strategy.model.version == 4
    assert torch.equal(vector_of(result.arrays, start.layout), strategy.model.vector)
    assert list(result.evaluate_metrics_serverapp) == [0, 1, 2, 3, 4]
    assert result.evaluate_metrics_serverapp[4]["norm"] != result.evaluate_metrics_serverapp[0]["norm"]
    assert list(result.train_metrics_clientapp) == [1, 2, 3, 4]
    assert result.train_metrics_clientapp[4]["updates"] == 2
    assert result.train_metrics_clientapp[4]["digit/loss"] > 0
    last = result.evaluate_metrics_clientapp[4]
    assert 0 < last["digit/accuracy"] < 1
    assert last["digit/examples"] > 200


def test_a_strategy_is_started_once(grid: Any, initialised: Initialise, start: GlobalModel) -> None:
    strategy = initialised(fedavg())
    strategy.start(grid, arrays_of(start), num_rounds=1)
    with pytest.raises(RuntimeError, match="'fedavg' was run before: make a new one"):
        strategy.start(grid, arrays_of(start), num_rounds=1)


def test_start_needs_an_initialised_strategy(grid: Any, start: GlobalModel) -> None:
    with pytest.raises(RuntimeError, match="call initialise"):
        fedasync().start(grid, arrays_of(start))


def test_flowers_own_loop_runs_a_synchronous_strategy_to_the_same_model(
    grid: Any, initialised: Initialise, start: GlobalModel
) -> None:
    """Flower's loop calls configure_train, aggregate_train, configure_evaluate and aggregate_evaluate."""
    ours, flowers = initialised(fedavg()), initialised(fedavg())
    ours.start(grid, arrays_of(start), num_rounds=3)
    result = FlowerStrategy.start(flowers, grid, arrays_of(start), num_rounds=3)
    assert flowers.model.version == 3
    assert torch.equal(vector_of(result.arrays, start.layout), flowers.model.vector)
    # Replies come in another order, and floating-point sums depend on it.
    torch.testing.assert_close(flowers.model.vector, ours.model.vector, rtol=1e-5, atol=1e-6)
    assert list(result.train_metrics_clientapp) == [1, 2, 3]
    metrics = result.evaluate_metrics_clientapp[3]
    assert set(metrics) >= {"digit/accuracy", "parity/accuracy", "ink/mse", "asymmetry/mae"}


def test_in_rounds_an_asynchronous_strategy_takes_each_reply_as_an_arrival(
    grid: Any, initialised: Initialise, start: GlobalModel
) -> None:
    """Three replies to orders from one version are three server steps, with staleness 0, 1 and 2."""
    strategy = initialised(fedasync())
    messages = strategy.configure_train(1, arrays_of(start), ConfigRecord(), grid)
    arrays, metrics = strategy.aggregate_train(1, grid.send_and_receive(messages))
    assert strategy.model.version == 3
    assert metrics is not None
    assert metrics["staleness"] == 2.0
    assert arrays is not None
    messages = list(strategy.configure_train(2, arrays, ConfigRecord(), grid))
    assert [message.metadata.group_id for message in messages] == ["1", "2", "3"]


def test_in_rounds_a_client_without_a_reply_is_lost_and_comes_back(
    grid: Any, initialised: Initialise, start: GlobalModel
) -> None:
    strategy = initialised(fedavg())
    messages = list(strategy.configure_train(1, arrays_of(start), ConfigRecord(), grid))
    first = grid.send_and_receive(messages[:1])
    failed = [grid.error(message, 2, "ClientApp raised") for message in messages[1:2]]
    arrays, metrics = strategy.aggregate_train(1, [*first, *failed])
    assert metrics is not None
    assert metrics["updates"] == 1
    assert arrays is not None
    assert len(list(strategy.configure_train(2, arrays, ConfigRecord(), grid))) == 3


def test_in_rounds_a_deadline_comes_after_the_replies(grid: Any, initialised: Initialise, start: GlobalModel) -> None:
    """This strategy aggregates at its next tick, not at an arrival; in a round nothing can come before that."""
    strategy = initialised(fedbuff(buffer_size=2, clock="tick"))
    messages = strategy.configure_train(1, arrays_of(start), ConfigRecord(), grid)
    arrays, metrics = strategy.aggregate_train(1, grid.send_and_receive(messages))
    assert metrics is not None
    assert metrics["updates"] == 2
    assert arrays is not None
    assert {message.metadata.group_id for message in strategy.configure_train(2, arrays, ConfigRecord(), grid)} == {"1"}


def test_in_rounds_a_run_goes_on_until_the_caller_says_that_it_is_over(
    grid: Any, initialised: Initialise, start: GlobalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FedCompass's late reports wait for a group, and those who are out keep theirs, from round to round."""
    now = [0.0]
    monkeypatch.setattr("strategies.flower.rounds.time", SimpleNamespace(monotonic=lambda: now[0]))
    strategy = initialised(fedcompass(q_max=4, latency_factor=1.1))
    arrays, groups = arrays_of(start), []
    for number, seconds in enumerate((1.0, 1.0, 1.0, 5.0), start=1):
        messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        groups.append(sorted(client for group in strategy.scheduler.groups.values() for client in group.members))
        now[0] += seconds
        made, _ = strategy.aggregate_train(number, grid.send_and_receive(messages))
        arrays = made or arrays
    assert groups == [[], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert (strategy.model.version, strategy.waiting) == (5, 3)
    _, metrics = strategy.finish_train()
    assert metrics is not None
    assert metrics["updates"] == 3
    assert (strategy.model.version, strategy.waiting) == (6, 0)
    assert strategy.finish_train() == (None, None)


def test_the_strategy_keeps_the_model_itself(grid: Any, initialised: Initialise, start: GlobalModel) -> None:
    strategy = initialised(fedavg())
    messages = strategy.configure_train(1, arrays_of(start), ConfigRecord(), grid)
    strategy.aggregate_train(1, grid.send_and_receive(messages))
    with pytest.raises(ValueError, match="not the model that the strategy made"):
        strategy.configure_train(2, arrays_of(start), ConfigRecord(), grid)


def test_arrays_of_another_model_are_named(start: GlobalModel) -> None:
    arrays = arrays_of(start)
    name = next(iter(arrays))
    del arrays[name]
    with pytest.raises(ValueError, match=f"array '{name}' is missing"):
        vector_of(arrays, start.layout)


def test_evaluations_are_averaged_with_their_examples_and_not_trusted(grid: Any, initialised: Initialise) -> None:
    strategy = initialised(fedavg())
    messages = list(strategy.configure_evaluate(0, arrays_of(strategy.model), ConfigRecord(), grid))
    grid.push_messages(messages)
    answers: list[dict[str, Any]] = [
        {"digit/accuracy": 0.5, "digit/examples": 10},
        {"digit/accuracy": 0.8, "digit/examples": 30},
        {"digit/accuracy": float("nan"), "digit/examples": 5, "ink/mse": 3.0},
    ]
    replies = [
        Message(RecordDict({"metrics": MetricRecord(answer)}), reply_to=message)
        for message, answer in zip(messages, answers, strict=True)
    ]
    assert strategy.aggregate_evaluate(0, replies) == MetricRecord({"digit/accuracy": 0.725, "digit/examples": 40})
    assert strategy.aggregate_evaluate(0, [grid.error(messages[0], 5, "gone")]) is None
