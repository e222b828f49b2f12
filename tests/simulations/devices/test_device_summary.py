import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmtl.config import DevicesSection
from simulations.devices import Devices, build_devices, describe


def test_rows_say_how_fast_the_devices_are() -> None:
    rows = dict(describe(Devices(4, 0, seconds_per_order=[1.0, 2.0, 4.0, 5.0]), steps=3).rows)
    assert rows == {
        "clients": "4",
        "fastest": "1 s",
        "median": "3 s",
        "mean": "3 s",
        "slowest": "5 s",
        "slowest / fastest": "5",
    }


def test_rows_say_what_else_is_modelled() -> None:
    devices = Devices(
        1, 0, seconds_per_step=2.0, jitter=0.05, upload_bytes_per_second=100.0, dropout=0.1, away_seconds=60
    )
    rows = dict(describe(devices, steps=3, bytes_down=10, bytes_up=200).rows)
    assert rows["median"] == "8 s"
    assert rows["jitter"] == "0.05 of an order's work"
    assert rows["bandwidth up, median"] == "100 bytes/s"
    assert "bandwidth down, median" not in rows
    assert rows["lost orders"] == "0.1, away for 60 s on average"


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50), st.integers(1, 20))
def test_every_client_is_in_one_bin(seconds: list[float], bins: int) -> None:
    histogram = describe(Devices(len(seconds), 0, seconds_per_order=seconds), steps=1, bins=bins).histogram
    assert sum(b.clients for b in histogram) == len(seconds)
    assert histogram[0].low == min(seconds)
    assert histogram[-1].high == max(seconds)
    assert all(one.high == two.low for one, two in itertools.pairwise(histogram))


def test_bins_have_equal_width_or_equal_ratio_if_the_spread_is_wide() -> None:
    narrow = describe(Devices(2, 0, seconds_per_order=[1.0, 11.0]), steps=1, bins=2).histogram
    assert [(b.low, b.high, b.clients) for b in narrow] == [(1.0, 6.0, 1), (6.0, 11.0, 1)]
    wide = describe(Devices(2, 0, seconds_per_order=[1.0, 10_000.0]), steps=1, bins=2).histogram
    assert np.isclose(wide[0].high, 100.0)


def test_named_devices_are_grouped_fastest_first() -> None:
    mix = {"jetson-nano": 1, "t4": 3}
    devices = build_devices(DevicesSection(kind="gpus", mix=mix), 8, 0, nn.Linear(64, 10), torch.zeros(20, 64))
    groups = describe(devices, steps=5).groups
    assert [(group.label, group.clients) for group in groups] == [("NVIDIA T4", 6), ("NVIDIA Jetson Nano", 2)]
    assert groups[0].seconds < groups[1].seconds
    assert describe(Devices(1, 0, seconds_per_order=1.0), steps=1).groups == ()
