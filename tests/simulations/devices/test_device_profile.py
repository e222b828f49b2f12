import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from simulations.devices import Devices


def test_duration_is_startup_plus_work_plus_transfers() -> None:
    devices = Devices(
        2,
        seed=0,
        startup_seconds=1.0,
        seconds_per_order=[2.0, 4.0],
        seconds_per_step=[0.5, 0.25],
        download_bytes_per_second=100.0,
        upload_bytes_per_second=[50.0, 25.0],
    )
    # Every number is a sum of powers of two, so the results are exact.
    assert devices.duration(0, job=0, steps=8, bytes_down=200, bytes_up=100) == 1 + 2 + 4 + 2 + 2
    assert devices.duration(1, job=0, steps=8, bytes_down=200, bytes_up=100) == 1 + 4 + 2 + 2 + 4
    assert devices.nominal_seconds(8, 200, 100).tolist() == [11.0, 13.0]
    assert devices.nominal_seconds(np.array([8, 0])).tolist() == [7.0, 5.0]


def test_transfers_take_no_time_where_bandwidth_is_not_modelled() -> None:
    devices = Devices(1, seed=0, seconds_per_order=3.0)
    assert devices.duration(0, 0, 5, bytes_down=10**12, bytes_up=10**12) == 3.0


def test_durations_are_plain_floats() -> None:
    devices = Devices(1, seed=0, seconds_per_step=1.0, jitter=0.1, dropout=0.9)
    assert type(devices.duration(0, 0, 5, 10, 10)) is float


def test_same_seed_same_durations_and_outages_in_any_order_of_calls() -> None:
    def make() -> Devices:
        return Devices(10, seed=7, seconds_per_step=1.0, jitter=0.2, dropout=0.3, away_seconds=5.0)

    keys = [(client, job) for client in range(10) for job in range(10)]
    forwards, backwards = make(), make()
    durations = {key: forwards.duration(*key, 3, 0, 0) for key in keys}
    outages = {key: forwards.outage(*key, 3.0) for key in keys}
    for key in reversed(keys):
        assert backwards.outage(*key, 3.0) == outages[key]
        assert backwards.duration(*key, 3, 0, 0) == durations[key]
    assert len(set(durations.values())) == len(keys)


def test_another_seed_draws_other_jitter_and_outages() -> None:
    one, two = (Devices(1, seed=seed, seconds_per_step=1.0, jitter=0.2, dropout=0.5) for seed in (1, 2))
    assert one.duration(0, 0, 1, 0, 0) != two.duration(0, 0, 1, 0, 0)
    assert [one.outage(0, job, 1.0) is None for job in range(64)] != [
        two.outage(0, job, 1.0) is None for job in range(64)
    ]


@pytest.mark.parametrize("jitter", [0.05, 0.5])
def test_jitter_has_mean_one_and_the_given_deviation(jitter: float) -> None:
    devices = Devices(200, seed=3, seconds_per_order=1.0, jitter=jitter)
    n = 200 * 200
    factors = np.array([devices.duration(client, job, 1, 0, 0) for client in range(200) for job in range(200)])
    # Five standard errors of the mean; the deviation of a log-normal at jitter 0.5 has heavier tails, hence 5 %.
    assert abs(factors.mean() - 1) < 5 * jitter / math.sqrt(n)
    assert factors.std() == pytest.approx(jitter, rel=0.05)


def test_jitter_scales_the_work_and_leaves_startup_and_transfers_alone() -> None:
    common = {"seed": 0, "seconds_per_order": 1.0, "jitter": 0.3}
    bare = Devices(1, **common)
    dressed = Devices(1, **common, startup_seconds=64.0, upload_bytes_per_second=1.0)
    # Adding 72 to a number near 1 rounds it at the scale of 2^-46.
    assert dressed.duration(0, 0, 1, 0, 8) - 72 == pytest.approx(bare.duration(0, 0, 1, 0, 0), abs=1e-13)


def test_outages_come_with_the_given_probability_at_uniform_fractions_and_last_the_given_mean() -> None:
    dropout, away, duration, n = 0.2, 30.0, 8.0, 40_000
    devices = Devices(400, seed=5, seconds_per_order=1.0, dropout=dropout, away_seconds=away)
    outages = [devices.outage(client, job, duration) for client in range(400) for job in range(n // 400)]
    lost = [outage for outage in outages if outage is not None]
    # Five standard errors: of a proportion, of a uniform mean (deviation 1 / sqrt(12)), of an exponential mean (1).
    assert abs(len(lost) / n - dropout) < 5 * math.sqrt(dropout * (1 - dropout) / n)
    fractions = np.array([outage.after for outage in lost]) / duration
    assert abs(fractions.mean() - 0.5) < 5 / math.sqrt(12 * len(lost))
    assert abs(np.mean([outage.away for outage in lost]) / away - 1) < 5 / math.sqrt(len(lost))
    # Loss, moment and absence are independent: a correlation of n draws has a standard error of 1 / sqrt(n).
    aways = np.array([outage.away for outage in lost])
    assert abs(np.corrcoef(fractions, aways)[0, 1]) < 5 / math.sqrt(len(lost))


def test_devices_never_go_away_unless_told_to() -> None:
    devices = Devices(10, seed=0, seconds_per_order=1.0)
    assert all(devices.outage(client, job, 1.0) is None for client in range(10) for job in range(100))


@given(
    seed=st.integers(0, 2**63 - 1),
    client=st.integers(0, 2),
    job=st.integers(0, 10**9),
    steps=st.integers(1, 10**6),
    jitter=st.floats(0, 10),
    seconds=st.floats(1e-9, 1e9),
)
def test_durations_and_outages_are_positive_and_finite(
    seed: int, client: int, job: int, steps: int, jitter: float, seconds: float
) -> None:
    devices = Devices(3, seed, seconds_per_step=seconds, jitter=jitter, dropout=0.99, away_seconds=1.0)
    duration = devices.duration(client, job, steps, 1, 1)
    assert 0 < duration < math.inf
    outage = devices.outage(client, job, duration)
    if outage is not None:
        assert 0 < outage.after <= duration
        assert 0 < outage.away < math.inf


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seconds_per_order": [1.0, math.nan, 1.0]}, "client 1: seconds_per_order is nan"),
        ({"seconds_per_step": [1.0, 1.0, -2.0]}, "client 2: seconds_per_step is -2"),
        ({"seconds_per_step": [1.0, 0.0, 1.0]}, "client 1: an order's time is 0"),
        ({"seconds_per_step": [1.0, 1.0]}, "expected one number for each of 3 clients"),
        ({"seconds_per_step": 1.0, "upload_bytes_per_second": 0.0}, "client 0: upload_bytes_per_second is 0"),
        ({"seconds_per_step": [1.0, 1.0, 1e16]}, r"client 2: seconds_per_step is 1e\+16, must be at most 2\^53"),
        ({"startup_seconds": 1e308}, r"client 0: devices.startup is 1e\+308, must be at most 2\^53"),
        ({"seconds_per_step": 1.0, "jitter": math.inf}, "devices.jitter = inf"),
        ({"seconds_per_step": 1.0, "jitter": 1e200}, r"devices.jitter = 1e\+200"),
        ({"seconds_per_step": 1.0, "away_seconds": 1e308}, r"devices.away = 1e\+308"),
        ({"seconds_per_step": 1.0, "dropout": 1.0}, "devices.dropout = 1.0"),
        ({"seconds_per_step": 1.0, "away_seconds": -1.0}, "devices.away = -1.0"),
    ],
)
def test_impossible_numbers_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Devices(3, seed=0, **wrong)
