"""The clock charges an order for its forward and backward passes: held to operations that are really counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clients.policies import CLIENT_HALVES
from clients.trainer import LocalTrainer
from fedmtl.balancing.table import BALANCERS
from fedmtl.data.federated import FederatedData, Shards
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Arrival, Balancing, GlobalModel, TrainOrder, TrainSettings
from fedmtl.randomness import torch_generator
from simulations import Experiment
from simulations.devices import DEVICES, Devices, World
from simulations.fleet import SimulatedFleet
from simulations.workers.inline import InlineWorkers
from strategies.task_weights import FedNTKTrace

EXAMPLES, HELD_OUT = 100, 25
SETTINGS = TrainSettings(epochs=1, batch_size=50)
STEPS = 2
EQUAL = Balancing("equal")


class Counter(FlopCounterMode):
    """Counts the operations of all matrix products, those too that torch's own table lacks."""

    class _Whole:
        """Stands in for the tracker of modules, which fails where autograd ends at the inputs."""

        parents = ("Global",)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def __init__(self) -> None:
        aten = torch.ops.aten
        missing = {
            aten.addmm_: lambda _, a, b, *__, **___: 2 * a[0] * a[1] * b[1],
            aten.baddbmm_: lambda _, a, b, *__, **___: 2 * a[0] * a[1] * a[2] * b[2],
            aten.mv: lambda a, _, **__: 2 * a[0] * a[1],
            aten.dot: lambda a, _, **__: 2 * a[0],
        }
        super().__init__(display=False, custom_mapping=missing)
        self.mod_tracker = self._Whole()  # type: ignore[assignment]


class Client:
    """One client with a hundred digits, on a device that takes a second for a plain order."""

    def __init__(self, model: str, tasks: Sequence[str]) -> None:
        experiment = Experiment.load(None, [f"model.name={model}", f"tasks.names={list(tasks)}"])
        pool = experiment.data
        shards, held_out = Shards([np.arange(EXAMPLES)]), Shards([np.arange(EXAMPLES, EXAMPLES + HELD_OUT)])
        owned = np.ones((1, len(tasks)), dtype=bool)
        self.data = FederatedData(pool.tasks, pool.train, pool.test, shards, held_out, owned)
        module = experiment.new_model()
        layout = ParameterLayout.of(module)
        self.base = GlobalModel(0, layout.pack(module), layout)
        self.trainer = LocalTrainer(module, self.data)
        self.plain = self.counted(self.order())[1]

    def fleet(self, devices: Devices | None = None) -> SimulatedFleet:
        devices = devices or Devices(1, 0, seconds_per_order=1.0)
        return SimulatedFleet(self.data, devices, InlineWorkers(self.trainer), self.base.layout)

    def order(self, balancing: Balancing = EQUAL, policy: str = "plain", job: int = 0, **fields: Any) -> TrainOrder:
        values = {"terms": {}, "vectors": {}} | fields
        return TrainOrder(0, job, self.base, None, SETTINGS, None, balancing, policy, seed=5, **values)

    def counted(self, order: TrainOrder, fleet: SimulatedFleet | None = None) -> tuple[float, float]:
        """The seconds of an order, and the operations of its training."""
        fleet = fleet or self.fleet()
        sent = fleet.now()
        fleet.send([order])
        with Counter() as counter:
            event = fleet.next_event(None)
        assert isinstance(event, Arrival)
        assert event.update.failure is None
        assert event.update.steps == STEPS
        return event.time - sent, counter.get_total_flops()

    def charged(self, *what: Any, devices: Devices | None = None, **fields: Any) -> float:
        """The seconds of an order."""
        fleet = self.fleet(devices)
        fleet.send([self.order(*what, **fields)])
        event = fleet.next_event(None)
        assert event is not None
        return event.time

    def near(self, number: int) -> Tensor:
        """A neighbour's model."""
        return self.base.vector + 0.01 * torch.randn(len(self.base.vector), generator=torch_generator(number, "near"))


FOUR, TWO = ("digit", "parity", "ink", "asymmetry"), ("digit", "ink")


@pytest.fixture(
    scope="module",
    params=[("mlp", FOUR), ("mlp", TWO), ("lenet", FOUR), ("lenet", TWO)],
    ids=lambda param: f"{param[0]}-{len(param[1])}",
)
def client(request: pytest.FixtureRequest) -> Client:
    return Client(*request.param)


@pytest.fixture(scope="module")
def mlp() -> Client:
    return Client("mlp", FOUR)


BALANCINGS = {name: Balancing(name) for name in BALANCERS} | {
    "fedntk-trace": FedNTKTrace().balancing,
    "probed at the representation": Balancing("equal-probed", {"probe": "sr"}),
    "ntkmtl in chunks": Balancing("ntkmtl", {"chunks": 2}),
}

PERTURBED = {"rho": 0.1, "mix": 1.0}
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "loss-reports": {"constants": {"steps": 0}},
    "control-variates": {},
    "own-model": {},
    "sharpness-aware": {"constants": PERTURBED},
    "dual-corrected": {"constants": PERTURBED},
    "tasks-apart": {},
    "adversarial": {"constants": {"rho": 0.1, "attack_steps": 3, "step_size": 0.3, "norm": "inf"}},
    "curriculum": {"terms": {"share": 0.5}, "constants": {"order": "easy_first"}},
    "simplex-classifier": {"constants": {"temperature": 1.0}},
    "convolution-decay": {"constants": {"decay": 0.1}},
    "compressed-jacobian": {"constants": {"rank": 1}},
    "merging": {
        "terms": {"weight/0": 0.3, "weight/1": 0.3},
        "constants": {"match": "activations", "examples": 256, "bn_data": "private"},
    },
}


@pytest.mark.parametrize("balancing", BALANCINGS)
def test_a_balancers_order_takes_as_much_longer_as_it_computes_more(client: Client, balancing: str) -> None:
    seconds, operations = client.counted(client.order(BALANCINGS[balancing]))
    assert seconds == pytest.approx(operations / client.plain, rel=0.15)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policys_order_does_too(client: Client, policy: str) -> None:
    fields = dict(POLICIES[policy])
    if policy == "merging":
        fields["vectors"] = {f"neighbour/{number}": client.near(number) for number in range(2)}
    seconds, operations = client.counted(client.order(policy=policy, **fields))
    assert seconds == pytest.approx(operations / client.plain, rel=0.15)


FEDQS = {
    "similarity": "angle",
    "since_last": False,
    "a": 0.01,
    "frequency_cap": 3.0,
    "rate_min": 0.01,
    "rate_max": 0.2,
    "m0": 0.1,
    "k": 1.0,
    "momentum_cap": 0.4,
    "adapt_momentum": True,
    "small_class": 5,
    "spread": 10.0,
}


def test_what_fedqs_probes_on_held_out_examples_is_little_and_not_charged(client: Client) -> None:
    fleet = client.fleet()
    terms = {"frequency": 0.01, "frequency_mean": 0.02, "similarity_mean": 1e-3}
    client.counted(client.order(policy="fedqs", constants=FEDQS, terms=terms), fleet)
    vectors = {"global_step": client.near(0) - client.base.vector}
    again = client.order(policy="fedqs", job=1, constants=FEDQS, terms=terms, vectors=vectors)
    seconds, operations = client.counted(again, fleet)
    assert seconds == 1.0
    assert client.plain < operations < 1.15 * client.plain  # slow and biased: it did probe


def test_every_policy_is_held_to_that() -> None:
    assert {*POLICIES, "fedqs"} == set(CLIENT_HALVES)


def test_halves_and_balancers_add_up(mlp: Client) -> None:
    """FAMO is asked twice a step, and FSMGDA prepares the heads for a balancer that it never asks."""
    for order in (
        mlp.order(Balancing("famo"), "sharpness-aware", constants=PERTURBED),
        mlp.order(Balancing("equal-probed", {"align": 2}), "tasks-apart"),
        mlp.order(Balancing("ntkmtl"), "compressed-jacobian", constants={"rank": 1}),
    ):
        seconds, operations = mlp.counted(order)
        assert seconds == pytest.approx(operations / mlp.plain, rel=0.15), order.policy


@pytest.mark.parametrize("balancing", ["equal", "ntkmtl-sr", "si", "rlw", "dwa", "uw", "imtl-l"])
def test_what_passes_once_is_a_plain_step_to_the_bit(mlp: Client, balancing: str) -> None:
    """So the main job, FedQS with NTKMTL-SR, has the times of plain steps."""
    assert mlp.charged(Balancing(balancing)) == 1.0
    uneven = Devices(1, 0, seconds_per_order=0.1, seconds_per_step=0.7, jitter=0.2)
    assert mlp.charged(Balancing(balancing), devices=uneven) == uneven.duration(0, 0, STEPS, 0, 0)


@pytest.mark.parametrize("balancing", BALANCERS)
def test_with_a_single_task_nothing_is_balanced_and_nothing_charged(balancing: str, alone: Client) -> None:
    if balancing == "equal-probed":
        assert alone.charged(Balancing(balancing)) > 1.5  # its two probes are of every task
    else:
        assert alone.charged(Balancing(balancing)) == 1.0


@pytest.fixture(scope="module")
def alone() -> Client:
    return Client("mlp", ("digit",))


@pytest.mark.parametrize("per", ["order", "step"])
def test_seconds_are_of_plain_orders_or_steps_whatever_they_are_counted_per(mlp: Client, per: str) -> None:
    devices = DEVICES["homogeneous"](World(1, 0), seconds=3.0, per=per, startup=10.0)
    plain, fourfold = (mlp.charged(policy=policy, devices=devices) for policy in ("plain", "tasks-apart"))
    busy = 3.0 if per == "order" else 3.0 * STEPS
    assert (plain, fourfold) == (10.0 + busy, 10.0 + 4 * busy)


@pytest.mark.parametrize(("column", "seconds"), [("seconds_per_order", 3.0), ("seconds_per_step", 3.0 * STEPS)])
def test_measured_seconds_stay_as_they_are_given(tmp_path: Path, mlp: Client, column: str, seconds: float) -> None:
    file = tmp_path / "speeds.csv"
    file.write_text(f"client,{column}\n0,3\n")
    devices = DEVICES["trace"](World(1, 0), file=str(file))
    assert mlp.charged(Balancing("ntkmtl"), "tasks-apart", devices=devices) == seconds


def test_a_job_of_fewer_steps_is_charged_for_these(mlp: Client) -> None:
    """FAMO goes forward once more in every step but the first; of one step, nothing is left."""
    order = dataclasses.replace(mlp.order(Balancing("famo")), steps=1)
    fleet = mlp.fleet()
    fleet.send([order])
    event = fleet.next_event(None)
    assert event is not None
    assert event.time == 1.0
