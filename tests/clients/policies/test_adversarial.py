"""Adversarial examples (spec baselines, property 20)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.policies.adversarial import Adversarial
from clients.policies.step_rule import Workbench
from fedmtl.balancing.network import TaskNetwork
from fedmtl.errors import DataError
from fedmtl.models import build_model

FAL = {"rho": 0.1, "attack_steps": 7, "step_size": 0.25, "norm": "inf"}


def bench(world, features: torch.Tensor | None = None) -> Workbench:
    model = build_model("mlp", world.options, (5,), world.TASKS, 0)
    examples = world.data.train.take(torch.arange(10))
    features = examples.features if features is None else features
    layout = world.start().layout
    return Workbench(TaskNetwork(model, world.TASKS), torch.zeros(0), layout, features, examples.targets, None)


def loss(work: Workbench, inputs: torch.Tensor) -> float:
    representation, _ = work.network.represent(inputs)
    return float(sum(work.network.losses(representation, work.targets)))


@settings(max_examples=25, deadline=None)
@given(
    rho=st.floats(0.0, 5.0), steps=st.integers(1, 9), size=st.floats(0.01, 3.0), norm=st.sampled_from(["inf", "two"])
)
def test_perturbed_inputs_stay_in_the_ball_and_in_the_range(world, rho: float, steps: int, size: float, norm) -> None:
    work = bench(world)
    adversary = Adversarial(rho, steps, size, norm)
    adversary.start(work)
    found = adversary.attack(work.network, work.features, work.targets)
    offset = (found - work.features).flatten(1)
    lengths = offset.abs().max(1).values if norm == "inf" else offset.norm(dim=1)
    # x + offset - x is off by a rounding error of x, which is at most 4 here.
    assert lengths.max() <= rho + 1e-6
    assert found.min() >= work.features.min()
    assert found.max() <= work.features.max()


@pytest.mark.parametrize("norm", ["inf", "two"])
def test_an_attack_raises_the_loss_and_more_steps_raise_it_more(world, norm) -> None:
    work = bench(world)
    losses = [loss(work, work.features)]
    for steps in (1, 7):
        adversary = Adversarial(0.3, steps, 0.25, norm)
        adversary.start(work)
        losses.append(loss(work, adversary.attack(work.network, work.features, work.targets)))
    assert losses == sorted(losses)
    assert losses[0] < losses[1] < losses[2]


def test_one_step_in_the_maximum_norm_is_the_gradients_sign(world) -> None:
    work = bench(world)
    adversary = Adversarial(0.01, 1, 0.5, "inf")
    adversary.start(work)
    gradient = work.network.input_gradient(work.features, work.targets)
    expected = (work.features + 0.005 * gradient.sign()).clamp(work.features.min(), work.features.max())
    torch.testing.assert_close(adversary.attack(work.network, work.features, work.targets), expected)


def test_without_a_radius_training_is_plain(world) -> None:
    plain = world.trainer().train(world.order())
    assert torch.equal(
        world.trainer().train(world.order("adversarial", constants=FAL | {"rho": 0.0})).delta, plain.delta
    )
    assert not torch.equal(world.trainer().train(world.order("adversarial", constants=FAL)).delta, plain.delta)


def test_tokens_have_no_neighbourhood(world) -> None:
    with pytest.raises(DataError, match="int64"):
        Adversarial(0.1, 7, 0.25, "inf").start(bench(world, torch.zeros(10, 5, dtype=torch.int64)))
