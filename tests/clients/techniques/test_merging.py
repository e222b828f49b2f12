"""DIMAT's merge (spec baselines, property 19)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.techniques.matching import hidden_layers, matched_by_activations, matched_by_weights, reordered
from clients.techniques.merging import Match, Merging
from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.errors import ConfigError
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.tasks import Task

TASKS = (Task("kind", "classification", 3), Task("size", "regression"))
MODELS = {
    "mlp": ({"hidden": (12, 7)}, (5,)),
    "lenet": ({"channels": (4, 6), "hidden": (10,), "padding": 0}, (1, 16, 16)),
    "linear": ({}, (5,)),
}


@dataclasses.dataclass
class Node:
    """One client with a model."""

    name: str

    def __post_init__(self) -> None:
        options, shape = MODELS[self.name]
        generator = torch.Generator().manual_seed(0)
        train = Examples(
            torch.randn(60, *shape, generator=generator),
            (torch.randint(0, 3, (60,), generator=generator), torch.randn(60, generator=generator)),
        )
        nothing = Shards([np.empty(0, dtype=np.int64)])
        data = FederatedData(TASKS, train, train, Shards([np.arange(60)]), nothing, np.ones((1, 2), dtype=bool))
        model = build_model(self.name, options, shape, TASKS, 3)
        self.layout = ParameterLayout.of(model)
        self.vector = self.layout.pack(model) + 0.05 * torch.randn(self.layout.size, generator=generator)
        self.layers = hidden_layers(model.backbone)
        self.units = [
            entry.shape[0] for entry in self.layout.entries if entry.name in {f"backbone.{n}.bias" for n in self.layers}
        ]
        self.trainer = LocalTrainer(model, data)
        network = self.trainer._network((0, 1))
        self.bench = self.trainer._workbench(network, (0, 1), data.shards[0])

    def shuffled(self, seed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The same network with its units in another order, and the orders."""
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(units, generator=generator) for units in self.units]
        return reordered(self.vector, self.layout, self.layers, orders), orders

    def outputs(self, vector: torch.Tensor) -> torch.Tensor:
        self.bench.vector.copy_(vector)
        with torch.no_grad():
            return torch.cat(self.trainer._model(self.bench.features), 1)

    def merge(self, *neighbours: tuple[float, torch.Tensor], match: Match = "activations") -> torch.Tensor:
        self.bench.vector.copy_(self.vector)
        Merging(neighbours, match, 256).start(self.bench)
        return self.bench.vector.clone()


every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_the_order_of_units_does_not_change_what_a_network_computes(name: str) -> None:
    node = Node(name)
    other, _ = node.shuffled(1)
    assert name == "linear" or not torch.equal(other, node.vector)
    torch.testing.assert_close(node.outputs(other), node.outputs(node.vector))


@every_model
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_permutation_is_found_and_merging_is_then_exact(name: str, seed: int) -> None:
    node = Node(name)
    other, orders = node.shuffled(seed)
    technique = Merging((), "activations", 256)
    mine, theirs = technique._activations(node.bench, node.vector), technique._activations(node.bench, other)
    for own, a, b, order in zip(node.units, mine, theirs, orders, strict=True):
        found = matched_by_activations(a, b, 60)
        moving = (a.abs().sum(0) > 0).nonzero()[:, 0]  # a unit that is always off may be any other such
        assert torch.equal(order[found][moving], torch.arange(own)[moving])
    merged = node.merge((0.5, other))
    torch.testing.assert_close(node.outputs(merged), node.outputs(node.vector), rtol=1e-4, atol=1e-5)
    if all((a.abs().sum(0) > 0).all() for a in mine):
        assert torch.equal(merged, node.vector)


@every_model
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_permutation_is_found_from_weights_alone(name: str, seed: int) -> None:
    node = Node(name)
    other, orders = node.shuffled(seed)
    found = matched_by_weights(node.vector, other, node.layout, node.layers)
    for order, back in zip(orders, found, strict=True):
        assert torch.equal(order[back], torch.arange(len(order)))
    assert torch.equal(node.merge((0.5, other), match="weights"), node.vector)


def test_few_examples_move_no_unit_of_models_that_are_nearly_alike() -> None:
    generator = torch.Generator().manual_seed(3)
    mine = torch.randn(20, 30, generator=generator)
    mine = mine - mine.mean(0)
    mine /= mine.square().mean(0).sqrt()
    alike = mine.roll(1, 1) * 0.95 + mine * 0.9  # each unit is a little more like its neighbour than like itself
    alike /= alike.square().mean(0).sqrt()
    assert torch.equal(matched_by_activations(mine, alike, 20), torch.arange(30))
    assert torch.equal(matched_by_activations(mine, alike, 20_000), torch.arange(1, 31) % 30)
    assert torch.equal(matched_by_activations(mine, mine.roll(1, 1), 20), torch.arange(1, 31) % 30)


def test_without_matching_the_shuffled_copy_spoils_the_merge() -> None:
    node = Node("mlp")
    other, _ = node.shuffled(1)
    error = (node.outputs(node.merge((0.5, other), match="none")) - node.outputs(node.vector)).abs().max()
    assert error > 0.05


@every_model
@pytest.mark.parametrize("match", ["activations", "weights", "none"])
def test_identical_models_merge_to_themselves_bit_for_bit(name: str, match: Match) -> None:
    node = Node(name)
    assert torch.equal(node.merge((1 / 3, node.vector.clone()), (1 / 3, node.vector.clone()), match=match), node.vector)


def test_units_that_never_fire_stay_in_their_places() -> None:
    node = Node("mlp")
    for index in (2, 5, 9):  # three of the first hidden layer
        node.vector[5 * 12 + index] = -100.0
    assert torch.equal(node.merge((0.5, node.vector.clone())), node.vector)


def test_without_matching_it_is_the_weighted_mean() -> None:
    node = Node("mlp")
    others = [torch.randn_like(node.vector) for _ in range(2)]
    expected = 0.5 * node.vector + 0.2 * others[0] + 0.3 * others[1]
    torch.testing.assert_close(node.merge((0.2, others[0]), (0.3, others[1]), match="none"), expected)


def test_a_model_whose_units_cannot_be_told_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.match = 'none'"):
        hidden_layers(build_model("resnet18", {}, (3, 16, 16), TASKS, 0).backbone)
