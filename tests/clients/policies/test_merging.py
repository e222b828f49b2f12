"""DIMAT's merge (spec baselines, property 19)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.policies.matching import matched_by_activations, matched_by_weights, reordered
from clients.policies.merging import Match, Merging, NormData
from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.errors import ConfigError
from fedmtl.models import build_model
from fedmtl.models.chain import hidden_layers
from fedmtl.models.norms import norms_in
from fedmtl.parameters import ParameterLayout
from fedmtl.tasks import Task

TASKS = (Task("kind", "classification", 3), Task("size", "regression"))
MODELS = {
    "mlp": ({"hidden": (12, 7)}, (5,)),
    "lenet": ({"channels": (4, 6), "hidden": (10,), "padding": 0}, (1, 16, 16)),
    "linear": ({}, (5,)),
    "mlp with batch norm": ({"hidden": (12, 7), "norm": "batch", "out_norm": "batch"}, (5,)),
    "lenet with batch norm": (
        {"channels": (4, 6), "hidden": (10,), "padding": 0, "norm": "batch"},
        (1, 16, 16),
    ),
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
        model = build_model(self.name.partition(" ")[0], options, shape, TASKS, 3)
        self.layout = ParameterLayout.of(model)
        self.vector = self.layout.pack(model) + 0.05 * torch.randn(self.layout.size, generator=generator)
        self.vector[self.layout.buffers].clamp_(min=0.5)  # a variance is
        self.layers = hidden_layers(model.backbone)
        biases = {f"backbone.{layer.name}.bias" for layer in self.layers}
        self.units = [entry.shape[0] for entry in self.layout.entries if entry.name in biases]
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

    def trained(self, vector: torch.Tensor) -> torch.Tensor:
        """All but the statistics of batch norm, which are measured anew in a merge."""
        return vector[self.layout.trainable]

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
    merging = Merging((), "activations", 256)
    mine, theirs = merging._activations(node.bench, node.vector), merging._activations(node.bench, other)
    for own, a, b, order in zip(node.units, mine, theirs, orders, strict=True):
        found = matched_by_activations(a, b, 60)
        moving = (a.abs().sum(0) > 0).nonzero()[:, 0]  # a unit that is always off may be any other such
        assert torch.equal(order[found][moving], torch.arange(own)[moving])
    merged = node.merge((0.5, other))
    torch.testing.assert_close(node.outputs(merged), node.outputs(node.vector), rtol=1e-4, atol=1e-5)
    if all((a.abs().sum(0) > 0).all() for a in mine):
        assert torch.equal(node.trained(merged), node.trained(node.vector))


@every_model
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_permutation_is_found_from_weights_alone(name: str, seed: int) -> None:
    node = Node(name)
    other, orders = node.shuffled(seed)
    found = matched_by_weights(node.vector, other, node.layout, node.layers)
    for order, back in zip(orders, found, strict=True):
        assert torch.equal(order[back], torch.arange(len(order)))
    merged = node.merge((0.5, other), match="weights")
    assert torch.equal(node.trained(merged), node.trained(node.vector))


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
    merged = node.merge((1 / 3, node.vector.clone()), (1 / 3, node.vector.clone()), match=match)
    assert torch.equal(node.trained(merged), node.trained(node.vector))


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


def statistics(node: Node, features: torch.Tensor) -> list[torch.Tensor]:
    """Means and variances of what goes into each batch norm in training, by the values that lie on the bench."""
    seen: list[torch.Tensor] = []
    norms = norms_in(node.bench.network.backbone)
    hooks = [norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for norm in norms]
    before = node.bench.vector.clone()
    with torch.no_grad():
        node.bench.network.backbone(features)
    node.bench.vector.copy_(before)
    for hook in hooks:
        hook.remove()
    return [value for inputs in seen for value in (inputs.mean(0), inputs.var(0))]


@pytest.mark.parametrize("match", ["activations", "weights", "none"])
@pytest.mark.parametrize("bn_data", ["private", "shared"])
def test_a_merged_model_has_statistics_of_its_own_and_no_mean_of_others(match: Match, bn_data: NormData) -> None:
    node = Node("mlp with batch norm")
    generator = torch.Generator().manual_seed(1)
    pooled = 4.0 * torch.randn(300, 5, generator=generator)
    node.bench = dataclasses.replace(node.bench, pooled=pooled)
    node.bench.vector.copy_(node.vector)
    other = node.vector + torch.randn(node.vector.shape, generator=generator)
    Merging(((0.5, other),), match, 100, bn_data).start(node.bench)
    expected = statistics(node, node.bench.features if bn_data == "private" else pooled[::3])
    kept = dict(node.bench.network.backbone.named_buffers())
    found = [value for name, value in kept.items() if name.rpartition(".")[2] in ("running_mean", "running_var")]
    assert len(found) == len(expected) == 6
    for mine, measured in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, measured)


def test_a_model_whose_units_cannot_be_told_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.match = 'none'"):
        hidden_layers(build_model("resnet18", {}, (3, 16, 16), TASKS, 0).backbone)
