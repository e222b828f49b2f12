import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.components import options_of, summary_of
from fedmtl.config import DevicesSection
from fedmtl.errors import ConfigError
from simulations.devices import DEVICES, build_devices, device_options

DRAWN = ["uniform", "normal", "exponential"]
COMMON = {"startup", "jitter", "download_bytes_per_second", "upload_bytes_per_second", "dropout", "away"}


def section(kind: str, **options: object) -> DevicesSection:
    return DevicesSection(kind=kind, **options)


def test_homogeneous_devices_take_the_given_seconds() -> None:
    per_order = build_devices(section("homogeneous", seconds=2), 5, seed=0)
    assert per_order.nominal_seconds(7).tolist() == [2.0] * 5
    per_step = build_devices(section("homogeneous", seconds=2, per="step"), 5, seed=0)
    assert per_step.nominal_seconds(7).tolist() == [14.0] * 5


@given(ratio=st.integers(1, 200), seed=st.integers(0, 1000))
def test_uniform_speeds_are_whole_ticks_within_the_ratio(ratio: int, seed: int) -> None:
    r = build_devices(section("uniform", ratio=ratio), 50, seed).seconds_per_order
    assert ((r >= 1) & (r <= ratio) & (r == np.floor(r))).all()


def test_uniform_speeds_reach_both_ends_and_are_equally_likely() -> None:
    n = 20_000
    r = build_devices(section("uniform", ratio=4), n, seed=0).seconds_per_order
    counts = np.bincount(r.astype(int))[1:]
    assert len(counts) == 4
    # Five standard deviations of a binomial count.
    assert (abs(counts - n / 4) < 5 * math.sqrt(n * 0.25 * 0.75)).all()


def test_uniform_speeds_can_be_per_step_and_in_other_ticks() -> None:
    per_order = build_devices(section("uniform"), 20, seed=1)
    per_step = build_devices(section("uniform", per="step", tick=0.5), 20, seed=1)
    assert (per_step.nominal_seconds(4) == 4 * 0.5 * per_order.seconds_per_order).all()


def test_startup_of_one_tick_gives_the_period_of_a_fedqs_client() -> None:
    devices = build_devices(section("uniform", startup=1), 20, seed=1)
    r = devices.seconds_per_order
    assert [devices.duration(client, 3, 10, 0, 0) for client in range(20)] == (r + 1).tolist()


def test_normal_speeds_have_the_given_mean_and_deviation() -> None:
    n = 40_000
    step = build_devices(section("normal"), n, seed=0).seconds_per_step / 0.15
    # Five standard errors. The floor at 0.1, three deviations below the mean, lifts the mean by 1e-4 deviations.
    assert abs(step.mean() - 1) < 5 * 0.3 / math.sqrt(n) + 1e-4
    assert step.std() == pytest.approx(0.3, rel=5 / math.sqrt(2 * n) + 2e-3)
    assert step.min() == pytest.approx(0.1)  # of 40,000 draws about 54 lie below the floor


def test_plain_exponential_speeds_have_the_given_mean() -> None:
    n = 40_000
    step = build_devices(section("exponential", exp_form="plain", floor=1e-9), n, seed=0).seconds_per_step / 0.15
    # Five standard errors of an exponential's mean and deviation (its fourth central moment is 9).
    assert abs(step.mean() - 1) < 5 / math.sqrt(n)
    assert abs(step.std() - 1) < 5 * math.sqrt(8 / (4 * n))


def test_binned_exponential_speeds_lie_in_the_middles_of_shifted_bins() -> None:
    n = 40_000
    step = build_devices(section("exponential"), n, seed=0).seconds_per_step / 0.15
    bins = (step - 0.5) / 0.1 - 0.5
    assert np.allclose(bins, np.round(bins), atol=1e-9)  # rounding of a few operations near 1
    assert bins.min() == pytest.approx(0, abs=1e-9)
    # Five standard errors of Exp(0.5), and the middles' own shift bin^2 / (12 scale).
    assert abs(step.mean() - 1) < 5 * 0.5 / math.sqrt(n) + 0.01 / 6
    # A share 1 - exp(-0.1 / 0.5) of an exponential with mean 0.5 lies in its first bin.
    first = 1 - math.exp(-0.2)
    assert abs((bins < 0.5).mean() - first) < 5 * math.sqrt(first * (1 - first) / n)


@pytest.mark.parametrize("kind", DRAWN)
def test_speeds_depend_on_the_seed_and_on_nothing_else(kind: str) -> None:
    def speeds(seed: int) -> list[float]:
        return build_devices(section(kind), 30, seed).nominal_seconds(2).tolist()

    first = speeds(11)
    np.random.default_rng().random()
    assert speeds(11) == first
    assert speeds(12) != first


@given(kind=st.sampled_from(DRAWN), seed=st.integers(0, 10**6), jitter=st.floats(0, 3))
def test_orders_of_every_kind_take_a_positive_time(kind: str, seed: int, jitter: float) -> None:
    devices = build_devices(section(kind, jitter=jitter), 20, seed)
    assert all(0 < devices.duration(client, 0, 1, 0, 0) < math.inf for client in range(20))


def test_fedcompass_kinds_vary_within_a_client_and_the_others_do_not() -> None:
    jitter = {
        kind: device_options(section(kind, **({"file": "x"} if kind == "trace" else {})))["jitter"] for kind in DEVICES
    }
    assert jitter == {"homogeneous": 0, "uniform": 0, "normal": 0.05, "exponential": 0.05, "trace": 0, "gpus": 0}


@pytest.mark.parametrize("kind", DEVICES)
def test_every_kind_has_the_common_options_and_says_what_they_mean(kind: str) -> None:
    options = {option.name: option for option in options_of(DEVICES[kind])}
    assert set(options) >= COMMON
    assert all(option.param.help for option in options.values())
    assert summary_of(DEVICES[kind]).endswith(".")


def test_common_options_reach_the_devices() -> None:
    devices = build_devices(
        section(
            "homogeneous",
            startup=2,
            jitter=0.1,
            download_bytes_per_second=1e6,
            upload_bytes_per_second=5e5,
            dropout=0.2,
            away=9,
        ),
        3,
        seed=4,
    )
    assert devices.startup_seconds.tolist() == [2.0] * 3
    assert devices.download_bytes_per_second.tolist() == [1e6] * 3
    assert devices.upload_bytes_per_second.tolist() == [5e5] * 3
    assert (devices.seed, devices.jitter, devices.dropout, devices.away_seconds) == (4, 0.1, 0.2, 9.0)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("unifrm", {}, "devices.kind = 'unifrm' is unknown .*uniform"),
        ("uniform", {"rato": 20}, "devices.rato .*ratio"),
        ("uniform", {"ratio": 0}, "devices.ratio = 0"),
        ("uniform", {"ratio": 2.5}, "devices.ratio = 2.5"),
        ("uniform", {"per": "epoch"}, "devices.per = 'epoch': .*'order' or 'step'"),
        ("homogeneous", {"seconds": 0}, "devices.seconds = 0"),
        ("homogeneous", {"dropout": 1}, "devices.dropout = 1"),
        ("exponential", {"exp_form": "round"}, "devices.exp_form"),
    ],
)
def test_wrong_options_name_the_key(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        device_options(section(kind, **options))


def test_options_come_back_complete_and_build_the_same_devices() -> None:
    given_options = section("normal", mean=0.5)
    complete = device_options(given_options)
    again = section("normal", **{key: value for key, value in complete.items() if value is not None})
    assert device_options(again) == complete
    one, two = (build_devices(s, 10, seed=0).seconds_per_step for s in (given_options, again))
    assert (one == two).all()
