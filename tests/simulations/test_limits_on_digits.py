"""Where one method must be another, with real clients: what the trainer does is in these limits, too."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from simulations import Experiment
from simulations.runner import simulated_fleet
from strategies.core.loop import Loop, Observer

# Four clients of equal speed with as many examples each: 1048 are trained on, in 6 batches a client.
WORLD = (
    "data.clients=4",
    "data.partition=iid",
    "data.validation_fraction=0.2",
    "devices.kind=homogeneous",
    "model.hidden=[12]",
    "training.epochs=1",
    "training.batch_size=50",
)
VERSIONS = 3


@dataclass(frozen=True)
class Limit:
    """A strategy's settings, the FedAvg that they make it, and one setting with which it is not."""

    options: tuple[str, ...]
    away: tuple[str, ...] = ()
    weight_base: str = "uniform"
    exact: bool = True
    versions: int = VERSIONS
    world: tuple[str, ...] = ()


ONE_TASK = ("tasks.names=['digit']",)
TICKS = ("buffer_size=4", "clock=tick")
LIMITS = {
    "fedprox": Limit(("mu=0",), ("mu=0.5",), "data_size"),
    "fednova": Limit((), ("stragglers=1", "mu=0.5"), "data_size", exact=False),
    "scaffold": Limit((), ("server_rate=0.5",), exact=False, versions=1),
    "fedasync": Limit(("alpha=1", "rho=0"), ("rho=0.5",), world=("data.clients=1",)),
    "fedat": Limit(("tiers=1", "proximal=0"), ("proximal=0.5",), "data_size"),
    "fedqs": Limit(
        (*TICKS, "a=0", "momentum=false", "feedback=false"),
        ("a=0.1",),
    ),
    "fedac": Limit(
        (*TICKS, "beta1=0", "beta2=0", "server_rate=1e8", "eps=1e8", "correction=off"), ("correction=on",), exact=False
    ),
    "fedqueue": Limit(("first_steps=6", "min_steps=6", "max_steps=6"), ("first_steps=5",)),
    "oort": Limit(("clients_per_round=4", "over_commit=1"), ("clients_per_round=2",), "data_size", exact=False),
    "heteroselect": Limit(("clients_per_round=4", "mu=0", "beta=0"), ("mu=0.5",), "data_size", exact=False),
    "dfedsam": Limit(("rho=0", "topology=full"), ("rho=0.5",), exact=False),
    "dimat": Limit(("match=none", "topology=full"), ("start=own",), exact=False),
    "fsmgda": Limit((), ("server_rate=0.5",), exact=False, world=ONE_TASK),
    "fedcmoo": Limit((), ("server_rate=0.5",), world=ONE_TASK),
}


class Models(Observer):
    """The model after each server step."""

    def __init__(self) -> None:
        self.vectors: list[torch.Tensor] = []

    def on_aggregation(self, loop: Loop, aggregation: object) -> None:
        self.vectors.append(loop.strategy.model.vector)


def trained(name: str, limit: Limit, *options: str) -> torch.Tensor:
    """The models, shape [versions, P]."""
    settings = [*WORLD, *limit.world, f"strategy.name={name}", *(f"strategy.{option}" for option in options)]
    experiment = Experiment.load(None, [*settings, "balancing.name=equal"])
    seen = Models()
    loop = Loop(experiment.new_strategy(), simulated_fleet(experiment), [seen])
    loop.run(lambda loop: "done" if loop.strategy.model.version >= limit.versions else None)
    return torch.stack(seen.vectors)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    # Three rounds of descent carry a rounding error of 1e-7 on.
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LIMITS)
def test_in_its_limit_a_method_is_fedavg_and_otherwise_not(name: str) -> None:
    limit = LIMITS[name]
    fedavg = trained("fedavg", limit, f"weight_base={limit.weight_base}")
    found = trained(name, limit, *limit.options)
    assert torch.equal(found, fedavg) if limit.exact else close(found, fedavg)
    assert not close(trained(name, limit, *limit.options, *limit.away), fedavg)


def test_the_corrections_of_scaffold_act_from_the_second_round_on() -> None:
    limit = Limit((), exact=False)
    scaffold, fedavg = trained("scaffold", limit), trained("fedavg", limit, "weight_base=uniform")
    assert close(scaffold[0], fedavg[0])
    assert not close(scaffold[1], fedavg[1])


def test_fedgelas_classifier_is_the_same_to_the_bit_in_every_version() -> None:
    limit = Limit((), world=("tasks.names=['digit','ink']", "data.partition=dirichlet", "data.alpha=0.1"))
    models = trained("fedgela", limit)
    settings = [*WORLD, *limit.world, "strategy.name=fedgela"]
    layout = Experiment.load(None, settings).new_strategy().model.layout
    classifier, other = (models[:, head] for head in layout.heads)
    assert all(torch.equal(row, classifier[0]) for row in classifier)
    assert not torch.equal(other[0], other[1])
    M = classifier[0][: 10 * 12].view(10, 12)
    # float32: unit columns, and cosines of -1 / (C - 1).
    torch.testing.assert_close(M @ M.T, torch.eye(10) * (10 / 9) - 1 / 9, rtol=0, atol=1e-6)
