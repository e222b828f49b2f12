"""Sharpness-aware steps (spec baselines, property 15)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from clients.policies.sharpness_aware import SharpnessAware, flat
from fedmtl.balancing import build_balancer
from fedmtl.balancing.base import StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.models import build_model
from fedmtl.protocol import Balancing

SAM = {"rho": 0.1, "mix": 1.0}


class Watched:
    """The balancer's gradients, and where and on what they were asked for."""

    def __init__(self, network: TaskNetwork) -> None:
        self.network = network
        self.points: list[torch.Tensor] = []
        self.batches: list[torch.Tensor] = []
        self.found: list[list[torch.Tensor]] = []
        self._balancer = build_balancer(Balancing("equal"))

    def __call__(self, inputs, targets) -> StepGradients:
        self.points.append(torch.cat([value.flatten() for value in self.network.values]))
        self.batches.append(inputs)
        step = self._balancer.gradients(self.network, inputs, targets, None)
        self.found.append([gradient.clone() for gradient in flat(step)])
        return step


@pytest.fixture(params=["mlp", "linear"])
def step(world, request):
    options = world.options if request.param == "mlp" else {}
    network = TaskNetwork(build_model(request.param, options, (5,), world.TASKS, 0), world.TASKS)
    examples = world.data.train.take(torch.arange(10))
    return network, Watched(network), examples


def test_the_climb_has_norm_rho_along_the_gradient_and_both_gradients_use_one_batch(step) -> None:
    network, watched, examples = step
    before = [value.clone() for value in network.values]
    g = flat(SharpnessAware(0.3).gradients(watched, network, examples.features, examples.targets))
    climb = watched.points[1] - watched.points[0]
    g1 = torch.cat([gradient.flatten() for gradient in watched.found[0]])
    torch.testing.assert_close(climb.norm(), torch.tensor(0.3), rtol=1e-5, atol=0)
    # Differences of float32 numbers of size 1: an error of about 1e-7 in entries of about 0.01.
    torch.testing.assert_close(climb, 0.3 * g1 / g1.norm(), rtol=0, atol=1e-6)
    assert watched.batches[0] is watched.batches[1]
    assert all(map(torch.equal, g, watched.found[1]))
    assert all(map(torch.equal, before, network.values))


def test_mix_interpolates_between_the_two_gradients(step) -> None:
    network, watched, examples = step
    g = flat(SharpnessAware(0.3, 0.25).gradients(watched, network, examples.features, examples.targets))
    for mixed, g1, g2 in zip(g, *watched.found, strict=True):
        torch.testing.assert_close(mixed, 0.75 * g1 + 0.25 * g2)


def test_without_a_radius_there_is_one_gradient(step) -> None:
    network, watched, examples = step
    g = flat(SharpnessAware(0.0).gradients(watched, network, examples.features, examples.targets))
    assert len(watched.found) == 1
    assert all(map(torch.equal, g, watched.found[0]))


def test_a_zero_gradient_climbs_nowhere(step) -> None:
    network, _, examples = step
    zeros = [torch.zeros_like(value) for value in network.values]
    shared = len(network.shared)

    def nothing(inputs, targets) -> StepGradients:
        return StepGradients(zeros[:shared], network.by_head(zeros[shared:]), torch.zeros(2))

    g = flat(SharpnessAware(0.3).gradients(nothing, network, examples.features, examples.targets))
    assert all(gradient.abs().max() == 0 for gradient in g)


def test_the_trainer_takes_the_gradients_where_the_loss_is_higher(world) -> None:
    plain = world.trainer().train(world.order())
    same = world.trainer().train(world.order("sharpness-aware", constants=SAM | {"rho": 0.0}))
    other = world.trainer().train(world.order("sharpness-aware", constants=SAM))
    assert torch.equal(plain.delta, same.delta)
    assert not torch.equal(plain.delta, other.delta)


def test_what_is_reported_are_the_losses_where_the_step_starts(world) -> None:
    plain = world.trainer().train(world.order(steps=1))
    other = world.trainer().train(world.order("sharpness-aware", steps=1, constants=SAM))
    assert other.task_losses == plain.task_losses


@pytest.mark.parametrize(
    ("policy", "constants"),
    [("sharpness-aware", SAM), ("simplex-classifier", {"temperature": 0.5})],
    ids=["SAM", "FedGELA"],
)
def test_what_the_balancer_measured_goes_up_with_the_update(world, policy, constants) -> None:
    probed = Balancing("equal-probed", {"sketch": 4})
    order = dataclasses.replace(world.order(policy, constants=constants), balancing=probed)
    update = world.trainer().train(order)
    assert len(update.task_traces) == 2
    assert update.task_sketches is not None
    assert update.task_sketches.shape == (2, 4)
