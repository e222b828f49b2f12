"""FedGELA's clients (spec baselines, property 16)."""

from __future__ import annotations

import pytest
import torch

from clients.policies.sharpness_aware import flat
from clients.policies.simplex_classifier import SimplexClassifier, class_shares
from fedmtl.balancing import build_balancer
from fedmtl.protocol import Balancing

FROZEN = {"temperature": 0.5}
DECAY = {"momentum": 0.9, "weight_decay": 0.1, "proximal": 0.3, "clip": 1.0}


def test_shares_are_one_where_all_classes_are_as_frequent_and_zero_where_there_are_none() -> None:
    assert class_shares(torch.tensor([0, 1, 2, 2, 1, 0]), 3).tolist() == [1.0, 1.0, 1.0]
    assert class_shares(torch.tensor([0, 2, 2, 2]), 4).tolist() == [1.0, 0.0, 3.0, 0.0]


@pytest.mark.parametrize("settings", [{}, DECAY], ids=["plain", "with momentum and decay"])
def test_the_classifier_comes_back_bit_for_bit_and_the_rest_moves(world, settings) -> None:
    order = world.order("simplex-classifier", client=1, constants=FROZEN, settings=settings)
    delta, layout = world.trainer().train(order).delta, order.base.layout
    assert delta[layout.heads[0]].abs().max() == 0
    assert delta[layout.shared].abs().max() > 0
    assert delta[layout.heads[1]].abs().max() > 0  # a regression's head


def step_of(world, labels: torch.Tensor):
    """A step of one client with these labels, and the bench it was made on."""
    trainer = world.trainer()
    network = trainer._network((0, 1))
    trainer._vector.copy_(world.start().vector)
    bench = trainer._workbench(network, (0, 1), world.data.shards[0][: len(labels)])
    bench.targets[0].copy_(labels)
    rule, balancer = SimplexClassifier(0.5), build_balancer(Balancing("equal"))
    rule.start(bench)

    def compute(inputs, targets):
        return balancer.gradients(network, inputs, targets, None)

    return bench, rule.gradients(compute, network, bench.features, bench.targets)


def test_the_gradient_is_that_of_the_scaled_logits(world) -> None:
    labels = torch.tensor([0, 0, 0, 2, 2, 0, 2, 0])
    bench, step = step_of(world, labels)
    network = bench.network
    x = bench.features
    layers = [value.clone().requires_grad_() for value in network.values[: len(network.shared)]]
    M, _, m, c = network.values[4:]
    h = x
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        h = torch.relu(h @ weight.T + bias)
    phi = torch.tensor([5.0, 0.0, 3.0]) * 3 / 8
    loss = torch.nn.functional.cross_entropy(h @ (M * phi[:, None]).T / 0.5, labels)
    other = 2.0 * ((h @ m.T + c)[:, 0] - bench.targets[1]).square().mean()
    expected = torch.autograd.grad(loss + other, layers)
    for found, wanted in zip(step.shared, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(step.losses[0], loss.detach())
    assert all(gradient.abs().max() == 0 for gradient in step.heads[0])


def test_an_absent_class_has_no_say(world) -> None:
    """Its row of M may be anything."""
    labels = torch.tensor([0, 0, 2, 2])
    _, first = step_of(world, labels)
    original = world.start

    def changed(seed: int = 3):
        model = original(seed)
        width = world.options["hidden"][-1]
        model.vector[model.layout.heads[0].start + width : model.layout.heads[0].start + 2 * width] += 7.0
        return model

    world.start = changed
    try:
        _, second = step_of(world, labels)
    finally:
        world.start = original
    assert all(map(torch.equal, flat(first), flat(second)))
