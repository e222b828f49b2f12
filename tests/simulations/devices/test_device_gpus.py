import copy
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmtl.config import DevicesSection
from fedmtl.errors import ConfigError
from fedmtl.models import MultiTaskModel
from fedmtl.tasks import Task
from simulations.devices import build_devices
from simulations.devices.catalogue import DEFAULT_MIX, GPUS
from simulations.devices.gpus import apportion
from simulations.devices.roofline import CONTEXT_BYTES, StepCost, count_step

# Cores and boost clocks (GHz) as published: a product computes two operations per core and cycle.
CORES_AND_CLOCKS = {
    "p100": (3584, 1.480),
    "v100": (5120, 1.530),
    "t4": (2560, 1.590),
    "a10": (9216, 1.695),
    "a100-40gb": (6912, 1.410),
    "a100-80gb": (6912, 1.410),
    "l4": (7424, 2.040),
    "l40s": (18176, 2.520),
    "h100-pcie": (14592, 1.755),
    "h100-sxm": (16896, 1.980),
    "h200": (16896, 1.980),
    "gtx-1080-ti": (3584, 1.582),
    "rtx-2080-ti": (4352, 1.545),
    "rtx-3060": (3584, 1.777),
    "rtx-3070": (5888, 1.725),
    "rtx-3090": (10496, 1.695),
    "rtx-a6000": (10752, 1.800),
    "rtx-4060": (3072, 2.460),
    "rtx-4070": (5888, 2.475),
    "rtx-4090": (16384, 2.520),
    "rtx-5090": (21760, 2.407),
    "jetson-nano": (128, 0.9216),
    "jetson-tx2": (256, 1.300),
    "jetson-xavier-nx": (384, 1.100),
    "jetson-agx-xavier": (512, 1.377),
    "jetson-orin-nano": (1024, 0.625),
    "jetson-agx-orin": (2048, 1.300),
}


def two_tasks() -> MultiTaskModel:
    backbone = nn.Sequential(nn.Linear(64, 200), nn.ReLU())
    return MultiTaskModel(backbone, 200, [Task("digit", "classification", 10), Task("parity", "binary")])


def gpu_section(**options: object) -> DevicesSection:
    return DevicesSection(kind="gpus", **options)


@pytest.mark.parametrize("name", CORES_AND_CLOCKS)
def test_peaks_agree_with_cores_and_clocks(name: str) -> None:
    cores, gigahertz = CORES_AND_CLOCKS[name]
    # Data sheets round to three figures or fewer (8.1 for 8.14).
    assert GPUS[name].peak == pytest.approx(2 * cores * gigahertz * 1e9, rel=0.01)


def test_the_catalogue_is_plausible() -> None:
    assert len(GPUS) >= 12
    assert set(DEFAULT_MIX) <= set(GPUS)
    assert len({gpu.name for gpu in GPUS.values()}) == len(GPUS)
    for gpu in GPUS.values():
        assert gpu.tensor_peak is None or gpu.tensor_peak > gpu.peak
        assert gpu.host >= 1


def test_a_step_is_bound_by_arithmetic_or_by_traffic_whichever_takes_longer() -> None:
    arithmetic = StepCost(flops=8.1e12, bytes_moved=1, kernels=0, memory=0)
    traffic = StepCost(flops=1, bytes_moved=640e9, kernels=0, memory=0)
    # A T4 at half efficiency: 8.1e12 operations at 4.05e12 per second, 640e9 bytes at 320e9 per second.
    assert arithmetic.seconds(GPUS["t4"], efficiency=0.5, launch_seconds=0) == pytest.approx(2.0, rel=1e-15)
    assert traffic.seconds(GPUS["t4"], efficiency=0.5, launch_seconds=0) == pytest.approx(2.0, rel=1e-15)


def test_launches_are_added_and_take_longer_from_an_embedded_processor() -> None:
    cost = StepCost(flops=0, bytes_moved=0, kernels=100, memory=0)
    seconds = {
        name: cost.seconds(GPUS[name], efficiency=1, launch_seconds=1e-5) for name in ("h100-sxm", "jetson-nano")
    }
    assert seconds == {"h100-sxm": pytest.approx(1e-3), "jetson-nano": pytest.approx(7e-3)}


def test_tensor_cores_count_where_they_are() -> None:
    cost = StepCost(flops=1e15, bytes_moved=0, kernels=0, memory=0)

    def seconds(name: str, tensor_cores: bool) -> float:
        return cost.seconds(GPUS[name], efficiency=1, launch_seconds=0, tensor_cores=tensor_cores)

    assert seconds("v100", True) == pytest.approx(1e15 / 125e12)
    assert seconds("p100", True) == seconds("p100", False)


def test_work_of_a_linear_model_counted_by_hand() -> None:
    cost = count_step(nn.Linear(784, 10), torch.zeros(50, 784))
    product = 2 * 50 * 784 * 10
    # Forward and the weights' gradient; the inputs need none.
    assert cost.flops == 2 * product
    weights, inputs, outputs = 4 * 7850, 4 * 50 * 784, 4 * 50 * 10
    # Weights, gradients and start model; nothing is saved but the inputs, which are held anyway.
    assert cost.memory == 3 * weights + inputs
    # At the least both products read and write their operands once, and the update passes over three vectors.
    assert cost.bytes_moved >= 2 * (inputs + outputs + 4 * 7840) + 3 * weights
    assert cost.bytes_moved < 1.5 * (2 * (inputs + outputs + 4 * 7840) + 3 * weights)


def test_work_of_a_multi_task_model_counted_by_hand() -> None:
    cost = count_step(two_tasks(), torch.zeros(50, 64))
    first, heads = 2 * 50 * 64 * 200, 2 * 50 * 200 * 11
    # The first layer needs no gradient of its inputs, the heads do.
    assert cost.flops == 2 * first + 3 * heads
    # Three copies of the weights, the batch, and the saved activations [50, 200] after the rectifier.
    parameters = 64 * 200 + 200 + 11 * 200 + 11
    assert cost.memory == 4 * (3 * parameters + 50 * 64 + 50 * 200)


def test_work_of_a_convolution_counted_by_hand() -> None:
    cost = count_step(nn.Conv2d(3, 8, kernel_size=5), torch.zeros(4, 3, 32, 32))
    assert cost.flops == 2 * (2 * 4 * 8 * 28 * 28 * 3 * 5 * 5)


def test_recurrent_layers_are_counted() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(30, 8)
            self.lstm = nn.LSTM(8, 16, batch_first=True)

        def forward(self, characters: Tensor) -> Tensor:
            states, _ = self.lstm(self.embed(characters))
            return states[:, -1]

    cost = count_step(Recurrent(), torch.zeros(4, 6, dtype=torch.int64))
    forward = 2 * 4 * 6 * 64 * (8 + 16)  # four gates of 16, from 8 inputs and 16 states, for 6 characters of 4 texts
    # Each product has two gradients, but for the first state, whose own is not needed.
    assert cost.flops == 3 * forward - 2 * 4 * 64 * 16


def test_counting_changes_nothing_and_computes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    count_step(model, torch.zeros(2, 3, 8, 8))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert torch.equal(state, torch.random.get_rng_state())


def test_gpus_make_seconds_per_step_by_the_roofline() -> None:
    model, batch = two_tasks(), torch.zeros(50, 64)
    cost = count_step(model, batch)
    devices = build_devices(gpu_section(mix={"t4": 1, "a100-40gb": 1}, efficiency=0.5), 10, 0, model, batch)
    assert devices.labels is not None
    assert Counter(devices.labels) == {"NVIDIA T4": 5, "NVIDIA A100 SXM 40 GB": 5}
    by_name = {gpu.name: gpu for gpu in GPUS.values()}
    expected = [cost.seconds(by_name[label], efficiency=0.5, launch_seconds=1e-5) for label in devices.labels]
    assert devices.seconds_per_step.tolist() == expected
    assert not devices.seconds_per_order.any()


def test_large_models_tell_gpus_apart_more_than_small_ones() -> None:
    mix = {"t4": 1, "h100-sxm": 1}

    def spread(width: int) -> float:
        model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        seconds = build_devices(gpu_section(mix=mix), 2, 0, model, torch.zeros(1024, width)).seconds_per_step
        return float(seconds.max() / seconds.min())

    assert 1 < spread(16) < 1.1  # waits for launches
    # Bound by arithmetic, so the ratio of the peaks, 8.26, but for 0.1 ms of launches in 8 ms on the faster one.
    assert spread(4096) == pytest.approx(66.9 / 8.1, rel=0.02)


def test_every_gpu_of_the_default_mix_is_used_and_the_draw_depends_on_the_seed() -> None:
    model, batch = two_tasks(), torch.zeros(50, 64)
    one, again, other = (build_devices(gpu_section(), 100, seed, model, batch) for seed in (1, 1, 2))
    assert one.labels == again.labels != other.labels
    assert Counter(one.labels) == Counter(other.labels)
    assert set(one.labels or ()) == {GPUS[name].name for name in DEFAULT_MIX}


@given(weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=10).map(np.array), seats=st.integers(1, 10_000))
def test_shares_are_met_to_within_one_client(weights: np.ndarray, seats: int) -> None:
    whole = apportion(weights, seats)
    assert whole.sum() == seats
    # Within one, but for the rounding of a share of at most 10,000.
    assert (abs(whole - weights / weights.sum() * seats) < 1 + 1e-9).all()


def test_a_model_that_does_not_fit_is_refused_with_both_names() -> None:
    with torch.device("meta"):
        model = nn.Linear(20_000, 20_000)
    batch = torch.zeros(8, 20_000, device="meta")
    # Three copies of 1.6 GB of weights and half a GB for the process.
    assert count_step(model, batch).memory + CONTEXT_BYTES == pytest.approx(5.3e9, rel=0.01)
    with pytest.raises(ConfigError, match=r"Linear .400,020,000 parameters.* 5.3 GB .*Jetson Nano has 4 GB") as error:
        build_devices(gpu_section(), 100, 0, model, batch)
    assert "Leave jetson-nano out of devices.mix" in str(error.value)
    assert len(build_devices(gpu_section(mix={"rtx-3070": 1}), 100, 0, model, batch)) == 100


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"rtx-4091": 1}, "devices.mix.rtx-4091 is unknown .did you mean 'rtx-4090'"),
        ({"t4": -1}, "devices.mix.t4 = -1.0: a weight must be"),
        ({"t4": "many"}, "devices.mix.* 'many'"),
        ({"t4": 0}, "devices.mix has no GPU with a positive weight"),
        ({}, "devices.mix has no GPU with a positive weight"),
    ],
)
def test_wrong_mixes_are_refused(mix: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_devices(gpu_section(mix=mix), 10, 0, nn.Linear(4, 4), torch.zeros(2, 4))


def test_a_model_and_a_batch_are_needed() -> None:
    with pytest.raises(ConfigError, match="needs a model and a batch"):
        build_devices(gpu_section(), 10, 0)
