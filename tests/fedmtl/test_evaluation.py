"""Metrics of models on test sets and on groups of clients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.evaluation import Evaluator, evaluate
from fedmtl.models import MultiTaskModel
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel
from fedmtl.tasks import Task

TASKS = (Task("digit", "classification", 3), Task("odd", "binary"), Task("ink", "regression", loss_factor=30.0))
CLIENTS = 8


def new_model() -> MultiTaskModel:
    torch.manual_seed(5)
    backbone = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8))
    return MultiTaskModel(backbone, 8, TASKS)


def examples(count: int, seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    targets = (
        torch.randint(3, (count,), generator=generator),
        torch.randint(2, (count,), generator=generator).float(),
        torch.randn(count, generator=generator),
    )
    return Examples(torch.randn(count, 6, generator=generator), targets)


def federated(owners: np.ndarray | None = None, held_out: int = 5) -> FederatedData:
    """Each client trains on 10 examples and holds out `held_out` of another 5."""
    starts = range(0, 15 * CLIENTS, 15)
    shards = Shards([np.arange(start, start + 10) for start in starts])
    validation = Shards([np.arange(start + 10, start + 10 + held_out) for start in starts])
    owned = np.ones((CLIENTS, 3), dtype=bool) if owners is None else owners
    return FederatedData(TASKS, examples(15 * CLIENTS, 1), examples(70, 2), shards, validation, owned)


def published(model: MultiTaskModel, version: int = 4) -> GlobalModel:
    layout = ParameterLayout.of(model)
    return GlobalModel(version, layout.pack(model), layout)


def direct(model: MultiTaskModel, part: Examples) -> dict[str, float]:
    """The metrics spelled out, in one batch."""
    model.eval()
    with torch.no_grad():
        digit, odd, ink = model(part.features)
    errors = ink[:, 0] - part.targets[2]
    return {
        "digit": float((digit.argmax(1) == part.targets[0]).double().mean()),
        "odd": float(((odd[:, 0] > 0).float() == part.targets[1]).double().mean()),
        "ink": float(errors.double().square().mean()),
    }


@pytest.mark.parametrize("batch_size", [1, 32, 1000])
def test_metrics_are_means_over_examples_whatever_the_batches(batch_size: int) -> None:
    model, part = new_model(), examples(70, 3)
    # Batches of other sizes take the sums in another order: float32 outputs differ in the last digits.
    assert evaluate(model, TASKS, part, batch_size) == pytest.approx(direct(new_model(), part), rel=1e-5)


def test_evaluation_changes_neither_the_mode_nor_the_values_of_a_model() -> None:
    model = new_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, TASKS, examples(70, 3))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_evaluating_on_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        evaluate(new_model(), TASKS, examples(0, 1))


def test_the_test_group_has_metric_and_loss_of_every_task() -> None:
    model, data = new_model(), federated(held_out=0)
    rows = Evaluator(new_model(), data).evaluate(published(model), 12.5)
    assert {(row.version, row.time, row.group) for row in rows} == {(4, 12.5, "test")}
    metrics = {row.task: row.value for row in rows if row.metric != "loss"}
    assert metrics == pytest.approx(direct(model, data.test), rel=1e-5)
    assert {row.task: row.metric for row in rows if row.metric != "loss"} == {t.name: t.metric for t in TASKS}
    loss = {row.task: row.value for row in rows if row.metric == "loss"}
    with torch.no_grad():
        digit, odd, _ = model.eval()(data.test.features)
    assert loss["digit"] == pytest.approx(float(F.cross_entropy(digit, data.test.targets[0])), rel=1e-5)
    assert loss["odd"] == pytest.approx(
        float(F.binary_cross_entropy_with_logits(odd[:, 0], data.test.targets[1])), rel=1e-5
    )
    assert loss["ink"] == pytest.approx(30 * metrics["ink"], rel=1e-5)


def test_the_evaluator_judges_the_version_it_is_given_and_not_its_module() -> None:
    data, model = federated(), new_model()
    evaluator = Evaluator(new_model(), data)
    first = evaluator.evaluate(published(model), 0.0)
    evaluator.evaluate(GlobalModel(5, torch.zeros_like(published(model).vector), ParameterLayout.of(model)), 1.0)
    assert evaluator.evaluate(published(model), 0.0) == first


def test_the_clients_losses_are_means_over_their_held_out_examples_of_the_tasks_they_own() -> None:
    owners = np.ones((CLIENTS, 3), dtype=bool)
    owners[2] = [False, True, False]
    model, data = new_model(), federated(owners)
    plain, evaluator = Evaluator(new_model(), data), Evaluator(new_model(), data, batch_size=7, client_losses=True)
    rows = evaluator.evaluate(published(model), 0.0)
    assert [row._replace(value=0.0) for row in rows] == [
        row._replace(value=0.0) for row in plain.evaluate(published(model), 0.0)
    ]
    assert plain.client_losses is None
    losses = evaluator.client_losses
    assert losses is not None
    assert (np.isnan(losses) == ~owners).all()
    for client in range(CLIENTS):
        part = held_out(data, [client])
        with torch.no_grad():
            outputs = model.eval()(part.features)
        direct = [float(t.mean_loss(o, y)) for t, o, y in zip(TASKS, outputs, part.targets, strict=True)]
        owned = owners[client]
        assert losses[client][owned].tolist() == pytest.approx(np.array(direct)[owned].tolist(), rel=1e-5)


def held_out(data: FederatedData, clients: list[int]) -> Examples:
    return data.train.take(torch.cat([data.validation[client] for client in clients]))


def test_clients_fast_and_slow_are_the_pooled_held_out_examples_of_all_and_of_the_two_halves() -> None:
    model, data = new_model(), federated()
    seconds = np.array([5.0, 1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0])
    rows = Evaluator(new_model(), data, seconds, batch_size=7).evaluate(published(model), 0.0)
    for group, clients in (("clients", [*range(CLIENTS)]), ("fast", [1, 3, 5, 7]), ("slow", [0, 2, 4, 6])):
        found = {row.task: row.value for row in rows if row.group == group}
        assert found == pytest.approx(direct(model, held_out(data, clients)), rel=1e-5)


@pytest.mark.parametrize("seconds", [None, np.full(CLIENTS, 2.0)])
def test_without_different_speeds_there_is_no_fast_and_no_slow_half(seconds: np.ndarray | None) -> None:
    rows = Evaluator(new_model(), federated(), seconds).evaluate(published(new_model()), 0.0)
    assert {row.group for row in rows} == {"test", "clients", "worst"}


def test_the_worst_tenth_is_each_tasks_worst_client_among_eight() -> None:
    model, data = new_model(), federated()
    rows = Evaluator(new_model(), data).evaluate(published(model), 0.0)
    each = [direct(model, held_out(data, [client])) for client in range(CLIENTS)]
    worst = {row.task: row.value for row in rows if row.group == "worst"}
    assert worst == pytest.approx(
        {
            "digit": min(values["digit"] for values in each),
            "odd": min(values["odd"] for values in each),
            "ink": max(values["ink"] for values in each),
        },
        rel=1e-5,
    )


def test_a_client_counts_only_in_the_tasks_it_owns() -> None:
    owners = np.ones((CLIENTS, 3), dtype=bool)
    owners[:, 2] = False
    owners[6, 2] = True
    model, data = new_model(), federated(owners)
    rows = Evaluator(new_model(), data, np.arange(CLIENTS, dtype=float)).evaluate(published(model), 0.0)
    ink = {row.group: row.value for row in rows if row.task == "ink" and row.group != "test"}
    alone = direct(model, held_out(data, [6]))["ink"]
    assert ink == pytest.approx({"clients": alone, "slow": alone, "worst": alone}, rel=1e-5)


class Diverged(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.full((len(inputs), 8), torch.nan)


def test_a_diverged_model_is_reported_as_such() -> None:
    model = MultiTaskModel(Diverged(), 8, TASKS)
    values = evaluate(model, TASKS, examples(10, 1))
    assert np.isnan(values["ink"])
