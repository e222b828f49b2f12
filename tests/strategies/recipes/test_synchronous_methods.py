"""The synchronous methods: where they must be FedAvg, and what else holds of each."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import TrainSettings
from strategies.core.ledger import Ledger
from strategies.core.loop import Loop
from strategies.policies import ControlVariates, Proximal
from strategies.recipes.catalogue import build_strategy
from strategies.weightings import DataSize, Normalised, Uniform
from strategies.weightings.normalised import gradient_mass

METHODS = ("fedavg", "fedprox", "scaffold", "fednova", "fedavgm", "fedadam", "fedyogi", "oort", "heteroselect")
every_method = pytest.mark.parametrize("name", METHODS)


def uneven(client: int, job: int) -> float:
    return 1.0 + client % 5 + 0.25 * (job % 2)


def vectors(toys, name: str, options: dict, *, versions: int = 12, clients: int = 9, **quirks) -> torch.Tensor:
    fleet = toys.Fleet(clients, uneven, toys.Quirks(**quirks))
    _, trace = toys.run(build_strategy(name, options), fleet, versions=versions)
    return torch.stack(trace.vectors)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fedprox", {"mu": 0.0}),
        ("fedavgm", {"beta": 0.0}),
        ("fedprox", {"mu": 0.0, "timeout": 1e6, "late": "keep"}),
        ("fedavgm", {"beta": 0.0, "step_budget": 1e6}),
    ],
    ids=str,
)
def test_in_its_limit_a_method_is_fedavg_bit_for_bit(toys, name: str, options: dict) -> None:
    rounds = {"clients_per_round": 4}
    assert torch.equal(vectors(toys, name, options | rounds), vectors(toys, "fedavg", rounds))


def test_fednova_with_equal_steps_is_fedavg(toys) -> None:
    # Weights that are computed on two ways round differently.
    torch.testing.assert_close(vectors(toys, "fednova", {}), vectors(toys, "fedavg", {}), rtol=1e-6, atol=1e-6)


def test_the_first_round_of_scaffold_is_fedavg(toys) -> None:
    scaffold = vectors(toys, "scaffold", {}, versions=1)
    torch.testing.assert_close(
        scaffold, vectors(toys, "fedavg", {"weight_base": "uniform"}, versions=1), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedavgm"])
def test_a_server_optimiser_makes_a_difference(toys, name: str) -> None:
    assert not torch.allclose(vectors(toys, name, {}), vectors(toys, "fedavg", {}), atol=1e-3)


def test_fedyogi_and_fedadam_start_alike_and_part(toys) -> None:
    adam, yogi = vectors(toys, "fedadam", {}), vectors(toys, "fedyogi", {})
    zero = vectors(toys, "fedadam", {"v0": "zero"})
    assert not torch.allclose(adam, yogi)
    assert not torch.allclose(adam, zero)


@every_method
def test_a_round_of_lost_and_late_and_faulty_clients_goes_on(toys, name: str) -> None:
    options = {"timeout": 3.0, "late": "keep", "clients_per_round": 4, "over_commit": 1.5}
    quirks = {
        "outage": lambda client, job: (0.5, 2.0) if (client + job) % 4 == 0 else None,
        "fault": lambda client, job: "nan" if (client + job) % 5 == 0 else "",
    }
    fleet = toys.Fleet(9, uneven, toys.Quirks(**quirks))
    loop, trace = toys.run(build_strategy(name, options), fleet, versions=30)
    assert loop.ended == "versions"
    assert any(aggregation.late for aggregation in trace.aggregations)
    assert {rejection.reason for rejection in trace.rejections} <= {"delta is not finite"}
    assert torch.isfinite(loop.strategy.model.vector).all()


@every_method
def test_a_run_cut_anywhere_goes_on_to_the_same_bits(toys, name: str) -> None:
    options = {"clients_per_round": 4, "timeout": 3.0, "late": "keep"}

    def fleet():
        outage = toys.Quirks(outage=lambda client, job: (0.5, 2.0) if (client + job) % 7 == 0 else None)
        return toys.Fleet(9, uneven, outage)

    whole, _ = toys.run(build_strategy(name, options), fleet(), events=90)
    for moment in (1, 23, 48, 71):
        first, _ = toys.run(build_strategy(name, options), fleet(), events=moment)
        rest = build_strategy(name, options)
        rest.initialise(toys.start_model())
        trace = toys.Trace()
        second = Loop(rest, fleet(), [trace])
        second.load_state_dict(toys.through_json(first.state_dict()))
        second.run(lambda loop, trace=trace, left=90 - moment: "events" if len(trace.events) >= left else None)
        assert torch.equal(rest.model.vector, whole.strategy.model.vector)


def test_gradient_mass_is_the_papers() -> None:
    assert gradient_mass(7, 0.0, 0.0) == 7.0
    assert gradient_mass(2, 0.9, 0.0) == pytest.approx(2.9)
    assert gradient_mass(5, 0.5, 0.0) == pytest.approx(sum((1 - 0.5**k) / 0.5 for k in range(1, 6)))
    recursion = 0.0
    for _ in range(6):
        recursion = (1 - 0.03) * recursion + 1
    assert gradient_mass(6, 0.0, 0.03) == pytest.approx(recursion)


@given(st.integers(1, 500), st.floats(0, 0.999), st.floats(0, 1))
def test_gradient_mass_is_the_distance_that_unit_gradients_go_but_at_least_1(
    steps: int, momentum: float, q: float
) -> None:
    u = v = 0.0
    for _ in range(steps):
        v = momentum * v + 1 - q * u
        u += v
    assert gradient_mass(steps, momentum, q) == pytest.approx(max(u, 1.0), rel=1e-9)
    assert gradient_mass(steps, momentum, 1e300) >= 1.0


def test_fednovas_weights_are_positive_where_momentum_swings_past_the_proximal_point(toys) -> None:
    updates = [toys.make_update(0, steps=8, momentum=0.99, learning_rate=0.5), toys.make_update(1, steps=2)]
    assert min(Normalised(Uniform(), mu=1.0).weights(updates, 0, Ledger())) > 0


def test_fednova_weighs_little_work_up_and_much_work_down(toys) -> None:
    updates = [toys.make_update(0, steps=2), toys.make_update(1, steps=6)]
    assert Normalised(Uniform()).weights(updates, 0, Ledger()) == pytest.approx((0.5 * 4 / 2, 0.5 * 4 / 6))
    golden = [toys.make_update(0, steps=2, momentum=0.9), toys.make_update(1, steps=2, momentum=0.0)]
    tau_eff = (2.9 + 2.0) / 2
    assert Normalised(Uniform()).weights(golden, 0, Ledger()) == pytest.approx((tau_eff / 5.8, tau_eff / 4))
    prox = [toys.make_update(0, steps=2, learning_rate=0.1), toys.make_update(1, steps=4, learning_rate=0.1)]
    masses = [gradient_mass(2, 0.0, 0.05), gradient_mass(4, 0.0, 0.05)]
    weights = Normalised(Uniform(), mu=0.5).weights(prox, 0, Ledger())
    assert weights == pytest.approx([0.5 * 3 / mass for mass in masses])


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 0.95), st.integers(1, 100)), min_size=1, max_size=8))
def test_normalised_weights_times_masses_are_shares_of_the_effective_work(toys, clients) -> None:
    updates = [toys.make_update(i, steps=steps, momentum=m, examples=n) for i, (steps, m, n) in enumerate(clients)]
    weights = Normalised(DataSize()).weights(updates, 0, Ledger())
    assert min(weights) > 0
    shares = [w * gradient_mass(u.steps, u.momentum, 0.0) for w, u in zip(weights, updates, strict=True)]
    p = DataSize().weights(updates, 0, Ledger())
    tau_eff = sum(shares)
    assert [share / tau_eff for share in shares] == pytest.approx(p)


def client_variates(toys, fleet) -> torch.Tensor:
    nothing = torch.zeros(toys.LAYOUT.size)
    return torch.stack([fleet.states.get(client, {}).get("variate", nothing) for client in range(fleet.count)])


@pytest.mark.parametrize("options", [{}, {"clients_per_round": 4}, {"timeout": 3.0, "late": "keep"}], ids=str)
def test_scaffolds_c_is_the_mean_of_the_clients(toys, options: dict) -> None:
    strategy, fleet = build_strategy("scaffold", options), toys.Fleet(9, uneven)
    checked = 0

    def check(loop: Loop) -> None:
        nonlocal checked
        settled = not loop.strategy.waiting
        if settled and (c := loop.strategy.policy.state_dict()["variate"]) is not None:
            # Sums of nine variates of about 1 in another order.
            torch.testing.assert_close(client_variates(toys, fleet).mean(0), c, rtol=0, atol=1e-5)
            checked += 1

    toys.run(strategy, fleet, versions=15, check=check)
    assert checked > 5


def test_scaffolds_c_in_a_head_is_the_mean_over_its_owners(toys) -> None:
    tasks = toys.Quirks(tasks=lambda client: (0, 1) if client < 3 else (0,))
    fleet = toys.Fleet(9, uneven, tasks)
    loop, _ = toys.run(build_strategy("scaffold", {}), fleet, versions=6)
    c, c_i = loop.strategy.policy.state_dict()["variate"], client_variates(toys, fleet)
    rare = toys.LAYOUT.heads[1]
    assert c_i[3:, rare].count_nonzero() == 0
    torch.testing.assert_close(c[rare], c_i[:3, rare].mean(0), rtol=0, atol=1e-5)
    common = toys.LAYOUT.shared
    torch.testing.assert_close(c[common], c_i[:, common].mean(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"timeout": 3.0}, {"clients_per_round": 4, "over_commit": 1.3}], ids=str)
def test_scaffold_is_refused_where_late_updates_are_dropped(options: dict) -> None:
    with pytest.raises(ConfigError, match=r"ControlVariates with Synchronous.*'every-update'.*variate is lost"):
        build_strategy("scaffold", options)


def test_momentum_under_control_variates_is_logged_once(toys, caplog: pytest.LogCaptureFixture) -> None:
    policy, settings = ControlVariates(), TrainSettings(momentum=0.9)
    policy.prepare(toys.start_model(), 0)
    with caplog.at_level(logging.WARNING):
        for client in range(5):
            policy.instruct(client, settings, toys.start_model(), Ledger())
    assert len(caplog.messages) == 1
    assert "up to 10 times too long" in caplog.messages[0]


def test_stragglers_run_a_random_part_of_their_epochs(toys) -> None:
    policy = Proximal(mu=0.1, stragglers=0.5)
    policy.prepare(toys.start_model(), 4)
    settings, start = TrainSettings(epochs=10), toys.start_model()
    told = [policy.instruct(client, settings, start, Ledger()).settings for client in range(400)]
    epochs = [one.epochs for one in told]
    assert set(epochs) == set(range(1, 11))
    # Half do all, and a twentieth of the others by chance: four deviations of 400 draws are 0.1.
    assert epochs.count(10) / 400 == pytest.approx(0.55, abs=0.1)
    assert {dataclasses.replace(one, epochs=10) for one in told} == {dataclasses.replace(settings, proximal=0.1)}
    again = [policy.instruct(client, settings, start, Ledger()).settings.epochs for client in range(400)]
    assert again == epochs
    later = toys.start_model(1)
    assert [policy.instruct(client, settings, later, Ledger()).settings.epochs for client in range(400)] != epochs


@pytest.mark.parametrize("name", ["oort", "heteroselect"])
def test_a_selection_differs_from_chance_and_reports_losses(toys, name: str) -> None:
    fleet = toys.Fleet(30, uneven)
    _, trace = toys.run(build_strategy(name, {"clients_per_round": 5, "over_commit": 1.0}), fleet, versions=20)
    assert all(set(update.terms) == {"loss_mean", "loss_rms"} for update in trace.received)
    _, chance = toys.run(build_strategy("fedavg", {"clients_per_round": 5}), toys.Fleet(30, uneven), versions=20)
    assert [update.client for update in trace.received] != [update.client for update in chance.received]


@pytest.mark.parametrize(
    ("scheduler", "recipe", "options"),
    [
        ({"name": "synchronous", "clients_per_round": 5, "selection": "oort"}, "oort", {"over_commit": 1.0}),
        (
            {"name": "synchronous", "clients_per_round": 5, "selection": "heteroselect"},
            "heteroselect",
            {"beta": 0.0, "mu": 0.0, "batches": 0},
        ),
    ],
    ids=["oort", "heteroselect"],
)
def test_a_selection_is_a_part_of_any_composition(toys, scheduler: dict, recipe: str, options: dict) -> None:
    free = {
        "scheduler": scheduler,
        "aggregator": "model",
        "weighting": "data-size",
        "policy": "loss-reports",
    }
    named = vectors(toys, recipe, {"clients_per_round": 5} | options, clients=20)
    assert torch.equal(vectors(toys, "custom", free, clients=20), named)
    buffered = {"scheduler": {"name": "buffered", "concurrency": 5, "selection": scheduler["selection"]}}
    assert len(vectors(toys, "custom", buffered, clients=20)) == 12


def test_krum_over_buffers_and_fednovas_weights_over_robust_parts_are_compositions(toys) -> None:
    krum = {"aggregator": {"name": "robust", "rule": "krum"}, "scheduler": "buffered"}
    assert len(vectors(toys, "custom", krum, clients=20)) == 12
    many = {"name": "robust", "rule": "krum", "malicious": 4}
    with pytest.raises(ConfigError, match=r"'krum' needs the updates of 11 clients in a step.* more than 10"):
        build_strategy("custom", {"aggregator": many, "scheduler": "buffered"})
    multi = {"aggregator": {"name": "robust", "rule": "multikrum", "selected": 3}, "weighting": "normalised"}
    assert len(vectors(toys, "custom", multi, clients=20)) == 12
