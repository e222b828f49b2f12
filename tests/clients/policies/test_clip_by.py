"""What the bound of a gradient is the bound of: of the model's, or of each part's, by every balancer and policy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.descent import Descent
from clients.policies.table import CLIENT_HALVES
from clients.trainer import LocalTrainer
from fedmtl.balancing import BALANCERS
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings
from fedmtl.tasks import Task

# A step's gradient is read off the model before and after it, which rounds to float32.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}

POLICIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fedqs": {},
    "loss-reports": {"constants": {"steps": 1}},
    "control-variates": {},
    "own-model": {},
    "merging": {"constants": {"match": "none", "examples": 10, "bn_data": "private"}},
    "sharpness-aware": {"constants": {"rho": 0.1, "mix": 0.5}},
    "dual-corrected": {"constants": {"rho": 0.1, "mix": 0.5}},
    "adversarial": {"constants": {"rho": 0.1, "attack_steps": 2, "step_size": 0.5, "norm": "two"}},
    "curriculum": {"terms": {"share": 0.5}, "constants": {"order": "hard_first"}},
    "simplex-classifier": {"constants": {"temperature": 1.0}},
    "convolution-decay": {"constants": {"decay": 0.1}},
    "compressed-jacobian": {"constants": {"rank": 1}},
}
"""What an order of each policy holds; of one that trains tasks apart see test_tasks_apart.py."""


def by_hand(clip: float, clip_by: str, balancing: Balancing) -> list[float]:
    """A step of rate 1 on one example: a unit h = relu(w x + b) at x = 1, w = 1, b = 0, and two heads v h + c.

    The heads' errors are e_1 = 2 - 1 and e_2 = 1 - 4 of squared losses with the slopes 2 e_i = 2 and -6. So the heads'
    gradients (of v and c) are (2, 2) and (-6, -6), and the shared one (of w and b) is 2 * 2 - 6 * 1 = -2, twice.
    """
    tasks = (Task("one", "regression"), Task("two", "regression"))
    train = Examples(torch.ones(1, 1), (torch.tensor([1.0]), torch.tensor([4.0])))
    shards, nothing = Shards([np.array([0])]), Shards([np.empty(0, dtype=np.int64)])
    data = FederatedData(tasks, train, train, shards, nothing, np.ones((1, 2), dtype=bool))
    model = build_model("mlp", {"hidden": (1,)}, (1,), tasks, 0)
    layout = ParameterLayout.of(model)
    base = GlobalModel(0, torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0, 0.0]), layout)
    settings = TrainSettings(epochs=1, learning_rate=1.0, clip=clip, clip_by=clip_by)
    order = TrainOrder(0, 0, base, None, settings, None, balancing, "plain", {}, {}, 0)
    return LocalTrainer(model, data).train(order).delta.tolist()


@pytest.mark.parametrize(
    ("clip_by", "expected"),
    [
        ("part", [1, 1, -1, -1, 1, 1]),
        ("model", [x * math.sqrt(2 / 88) for x in (2, 2, -2, -2, 6, 6)]),
    ],
)
def test_a_bound_of_the_root_of_2_by_hand(clip_by: str, expected: list[float]) -> None:
    assert by_hand(math.sqrt(2), clip_by, Balancing("equal")) == pytest.approx(expected)
    assert by_hand(0.0, clip_by, Balancing("equal")) == [2, 2, -2, -2, 6, 6]
    assert by_hand(100.0, clip_by, Balancing("equal")) == [2, 2, -2, -2, 6, 6]


def test_bounds_of_fedntk_traces_client_are_those_of_the_parts() -> None:
    own = Balancing("equal-probed", {"clip": math.sqrt(2), "head_clip": math.sqrt(2)})
    assert by_hand(4.0, "model", own) == pytest.approx([1, 1, -1, -1, 1, 1])
    assert by_hand(math.sqrt(2), "part", Balancing("equal-probed")) == pytest.approx([1, 1, -1, -1, 1, 1])


def parts_of_step(world: Any, policy: str, balancing: str, clip: float, clip_by: str) -> list[Tensor]:
    """The backbone's and each head's gradient in a job of one step of rate 1."""
    settings = {"learning_rate": 1.0, "clip": clip, "clip_by": clip_by}
    order = world.order(policy, steps=1, settings=settings, **POLICIES[policy])
    update = world.trainer().train(dataclasses.replace(order, balancing=Balancing(balancing)))
    return [-update.delta[part] for part in (order.base.layout.shared, *order.base.layout.heads)]


@pytest.mark.parametrize(
    ("policy", "balancing"),
    [*(("plain", name) for name in BALANCERS), *((name, "equal") for name in POLICIES if name != "plain")],
)
def test_every_balancer_and_policy_keeps_to_both_bounds(world: Any, policy: str, balancing: str) -> None:
    raw = parts_of_step(world, policy, balancing, 0.0, "model")
    norms = [part.norm().item() for part in raw]
    assert sum(norm > 0 for norm in norms) >= 2  # the frozen head of a simplex has none
    bound = 0.5 * sorted(norms)[-2]  # so that two parts are longer, at least
    apart = parts_of_step(world, policy, balancing, bound, "part")
    for part, whole, norm in zip(apart, raw, norms, strict=True):
        torch.testing.assert_close(part, whole * min(1.0, bound / norm) if norm else whole, **CLOSE)
    jointly = parts_of_step(world, policy, balancing, bound, "model")
    factor = bound / math.hypot(*norms)
    for part, whole in zip(jointly, raw, strict=True):
        torch.testing.assert_close(part, whole * factor, **CLOSE)


def test_every_policy_is_tried() -> None:
    assert {*POLICIES, "tasks-apart"} == set(CLIENT_HALVES)


def test_a_part_that_is_not_finite_leaves_the_others_within_their_bounds() -> None:
    values = [torch.zeros(2), torch.zeros(2)]
    settings = TrainSettings(learning_rate=1.0, clip=1.0, clip_by="part")
    Descent(values, settings).step([torch.tensor([3.0, 4.0])], [[torch.tensor([math.nan, 0.0])]])
    assert values[0].tolist() == pytest.approx([-0.6, -0.8])
    assert math.isnan(values[1][0])


def test_a_backbone_without_parameters_has_no_part() -> None:
    values = [torch.zeros(2), torch.zeros(1)]
    settings = TrainSettings(learning_rate=1.0, clip=1.0, clip_by="part")
    Descent(values, settings).step([], [[torch.tensor([3.0, 4.0])], [torch.tensor([0.5])]])
    assert values[0].tolist() == pytest.approx([-0.6, -0.8])
    assert values[1].tolist() == [-0.5]
