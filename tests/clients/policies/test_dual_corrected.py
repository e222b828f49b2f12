"""FedSpeed's local steps and dual variable, against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.policies import client_half
from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings, Update
from fedmtl.tasks import Task

TASK = Task("size", "regression")
RHO, LAMBDA, ETA = 0.2, 0.5, 0.05


@pytest.fixture(scope="module")
def data() -> FederatedData:
    generator = torch.Generator().manual_seed(4)
    train = Examples(torch.randn(12, 3, generator=generator), (torch.randn(12, generator=generator),))
    nothing = Shards([np.empty(0, dtype=np.int64)])
    return FederatedData([TASK], train, train, Shards([np.arange(12)]), nothing, np.ones((1, 1), dtype=bool))


def make_order(data: FederatedData, job: int, base: torch.Tensor | None = None) -> TrainOrder:
    model = build_model("linear", {}, (3,), [TASK], 0)
    layout = ParameterLayout.of(model)
    vector = layout.pack(model) if base is None else base
    settings = TrainSettings(batch_size=12, learning_rate=ETA, clip=0.0, proximal=LAMBDA)
    constants = {"rho": RHO, "mix": 1.0}
    return TrainOrder(
        0,
        job,
        GlobalModel(job, vector, layout),
        3,
        settings,
        None,
        Balancing("equal"),
        "dual-corrected",
        {},
        {},
        1,
        constants,
    )


def gradient(data: FederatedData, w: torch.Tensor) -> torch.Tensor:
    """Of the mean squared error of ``x W + b``, written out."""
    x = torch.cat([data.train.features, torch.ones(12, 1)], 1)
    return 2 / 12 * x.T @ (x @ w - data.train.targets[0])


def test_steps_and_dual_follow_the_formulas_from_job_to_job(data: FederatedData) -> None:
    half, state, h = client_half("dual-corrected"), {}, torch.zeros(4)
    trainer = LocalTrainer(build_model("linear", {}, (3,), [TASK], 9), data)
    base = None
    for job in range(3):
        order = make_order(data, job, base)
        update = trainer.train(order, half.observe(order, state))
        half.conclude(order, update, state)
        start = w = order.base.vector
        for _ in range(3):
            g1 = gradient(data, w)
            g2 = gradient(data, w + RHO * g1 / g1.norm())
            w = w - ETA * (g2 + LAMBDA * (w - start + h))
        h = h + w - start
        torch.testing.assert_close(update.delta, w - start, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(state["dual"], h, rtol=1e-5, atol=1e-6)
        base = start + update.delta
    assert half.gradient_calls(order, 3) == 6


def test_a_failed_job_leaves_the_dual_as_it_was(data: FederatedData) -> None:
    half, order = client_half("dual-corrected"), make_order(data, 0)
    state = {"dual": torch.ones(4)}
    half.conclude(order, Update(0, 0, 0, torch.full((4,), torch.nan), 12, 3), state)
    half.conclude(order, Update(0, 0, 0, torch.ones(4), 12, 3, failure="the loss is nan"), state)
    assert torch.equal(state["dual"], torch.ones(4))
