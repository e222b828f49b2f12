"""Clients whose features are shifted: their own, all of them, and nobody else's."""

import numpy as np
import pytest
import torch

from fedmtl.config import parse_config
from fedmtl.data.build import build_data, data_options
from fedmtl.data.federated import FederatedData
from fedmtl.data.shift import make_shift, rotated
from fedmtl.errors import ConfigError
from simulations import Experiment, run


def data_of(*settings: str) -> FederatedData:
    return build_data(parse_config({}, ["data.clients=8", *settings]))


@pytest.fixture(scope="module")
def plain() -> FederatedData:
    return data_of()


def test_quarter_turns_are_exact_and_counter_clockwise():
    images = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    for turns in range(-2, 3):
        assert torch.equal(rotated(images, 90.0 * turns), torch.rot90(images, turns, (2, 3)))


def test_other_turns_are_scipys_with_linear_interpolation():
    from scipy.ndimage import rotate

    image = np.random.default_rng(0).random((9, 6))
    expected = rotate(image, 25, reshape=False, order=1, mode="nearest")
    # A pixel's place is rounded to 9 decimals.
    assert np.abs(rotated(torch.from_numpy(image)[None, None], 25.0)[0, 0].numpy() - expected).max() < 1e-8


def test_strengths_are_evenly_spaced_in_an_order_of_the_seeds():
    rotation, noise = (make_shift(kind, 40.0, 4, seed=0) for kind in ("rotation", "noise"))
    assert sorted(rotation.levels) == pytest.approx([-20, 0, 20, 40])
    assert sorted(noise.levels) == pytest.approx([10, 20, 30, 40])
    orders = {tuple(make_shift("noise", 1.0, 20, seed).levels) for seed in (1, 1, 2)}
    assert len(orders) == 2


@pytest.mark.parametrize("kind", ["rotation", "noise"])
def test_a_client_sees_all_its_examples_through_its_own_shift_and_the_test_set_is_as_it_was(plain, kind):
    data = data_of(f"data.shift={kind}", "data.shift_strength=90")
    assert torch.equal(data.test.features, plain.test.features)
    assert torch.equal(data.train.targets[0], plain.train.targets[0])
    for client in range(8):
        for part in (plain.shards, plain.validation):
            before, after = (d.train.features[part[client]] for d in (plain, data))
            if kind == "rotation":
                assert torch.equal(after, rotated(before, float(data.shift.levels[client])))
            else:
                added = (after - before).double()
                # Of 64 n standard normal numbers, five deviations of their root mean square.
                tolerance = 5 / (2 * added.numel()) ** 0.5
                assert added.square().mean().sqrt() == pytest.approx(data.shift.levels[client], rel=tolerance)


def test_examples_of_nobody_are_left_alone(plain):
    settings = ["data.partition=pathological", "data.clients=2", "data.classes_per_client=1"]
    before, after = (data_of(*settings, *more) for more in ((), ("data.shift=noise",)))
    used = torch.cat([before.examples_of(client) for client in range(2)])
    unused = torch.ones(len(before.train), dtype=torch.bool)
    unused[used] = False
    changed = (before.train.features != after.train.features).flatten(1).any(1)
    assert bool(unused.any())
    assert torch.equal(changed, ~unused)


def test_no_strength_is_no_shift_and_the_seed_decides_the_noise(plain):
    assert torch.equal(data_of("data.shift=noise", "data.shift_strength=0.0").train.features, plain.train.features)
    noisy = [data_of("data.shift=noise", *more).train.features for more in ((), (), ("data.shift_strength=0.2",))]
    assert torch.equal(noisy[0], noisy[1])
    # Whatever the strength, the same noise.
    assert torch.allclose(2 * (noisy[0] - plain.train.features), noisy[2] - plain.train.features, atol=1e-5)


def test_what_does_not_go_together_is_refused_before_any_data_are_read():
    for settings, message in (
        (["data.shift_strength=10.0"], r"data\.shift_strength = 10 has no effect with data\.shift = 'none'"),
        (["data.shift=rotation", "data.shift_strength=200.0"], r"shift_strength = 200: .* at most 180 degrees"),
    ):
        with pytest.raises(ConfigError, match=message):
            data_options(parse_config({}, settings))
    with pytest.raises(ConfigError, match="shift_strength"):
        parse_config({}, ["data.shift=noise", "data.shift_strength=-1.0"])


def test_tables_cannot_be_turned_but_disturbed():
    table = ["data.source=synthetic-tasks", "data.partition=iid"]
    with pytest.raises(ConfigError, match=r"'rotation' needs images .* features of shape \(40,\): use 'noise'"):
        data_of(*table, "data.shift=rotation")
    assert data_of(*table, "data.shift=noise").shift.levels.max() == 0.1


def test_symbols_cannot_be_shifted():
    symbols = torch.zeros(4, 3, 3, 3, dtype=torch.int64)
    for kind in ("rotation", "noise"):
        with pytest.raises(ConfigError, match=f"data.shift = '{kind}' needs .*symbols"):
            make_shift(kind, 1.0, 2, seed=0).apply(0, symbols)


def test_a_run_says_how_its_clients_were_shifted_and_differs_by_its_digest(tmp_path):
    short = ["data.clients=8", "stop.versions=1", "strategy.name=fedavg", "balancing.name=equal", "records.pictures=[]"]
    plain, shifted = (
        Experiment.load(overrides=[*short, *more]) for more in ((), ("data.shift=rotation", "data.shift_strength=30.0"))
    )
    assert plain.digest != shifted.digest
    assert plain.digest == Experiment.load(overrides=[*short, "data.shift=none"]).digest
    done = run(shifted, tmp_path / "run")
    assert done.summary["shift"] == {"kind": "rotation", "strength": 30.0, "unit": "degrees"}
    assert "rotation, at most 30 degrees" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_noise_that_no_number_holds_is_refused():
    with pytest.raises(ConfigError, match=r"data\.shift_strength = 1e\+39: noise of that deviation is more than"):
        data_of("data.shift=noise", "data.shift_strength=1e39")
