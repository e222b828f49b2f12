"""Real GPUs, by the figures that their vendors publish.

The figures were written down from general knowledge and not read off the data sheets again: check a GPU's entry before
a result rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TERA = 1e12
GIGA = 1e9


@dataclass(frozen=True)
class Gpu:
    """What is published about a GPU.

    Attributes
    ----------
    name
        The product.
    peak
        FLOP/s in 32-bit floating point outside tensor cores: two per core and cycle of the boost clock.
    tensor_peak
        FLOP/s of the tensor (or matrix) cores on dense 16-bit inputs with 32-bit accumulation; None where it has none.
    bandwidth
        Bytes per second from and to its memory.
    memory
        Bytes of memory; on a Jetson the system has its share of them.
    host
        How much longer than a desktop's the processor beside it takes to launch a kernel. No data sheet says: 1 for
        everything that sits in a PC or a server, and for embedded boards a rough estimate of ours from their cores and
        clocks.
    """

    name: str
    peak: float
    tensor_peak: float | None
    bandwidth: float
    memory: float
    host: float = 1.0


def _gpu(
    name: str, teraflops: float, tensor: float | None, gigabytes_per_second: float, gigabytes: float, host: float = 1.0
) -> Gpu:
    tensor_peak = None if tensor is None else tensor * TERA
    return Gpu(name, teraflops * TERA, tensor_peak, gigabytes_per_second * GIGA, gigabytes * GIGA, host)


GPUS: Mapping[str, Gpu] = {
    # Data centre.
    "p100": _gpu("NVIDIA Tesla P100 SXM2", 10.6, None, 732, 16),
    "v100": _gpu("NVIDIA Tesla V100 SXM2", 15.7, 125, 900, 32),
    "t4": _gpu("NVIDIA T4", 8.1, 65, 320, 16),
    "a10": _gpu("NVIDIA A10", 31.2, 125, 600, 24),
    "a100-40gb": _gpu("NVIDIA A100 SXM 40 GB", 19.5, 312, 1555, 40),
    "a100-80gb": _gpu("NVIDIA A100 SXM 80 GB", 19.5, 312, 2039, 80),
    "l4": _gpu("NVIDIA L4", 30.3, 121, 300, 24),
    "l40s": _gpu("NVIDIA L40S", 91.6, 362, 864, 48),
    "h100-pcie": _gpu("NVIDIA H100 PCIe", 51.2, 756, 2000, 80),
    "h100-sxm": _gpu("NVIDIA H100 SXM", 66.9, 989, 3350, 80),
    "h200": _gpu("NVIDIA H200 SXM", 66.9, 989, 4800, 141),
    "mi210": _gpu("AMD Instinct MI210", 22.6, 181, 1638, 64),
    "mi300x": _gpu("AMD Instinct MI300X", 163.4, 1307, 5300, 192),
    # Workstation and consumer. Their tensor cores run at half rate when they accumulate in 32 bits.
    "gtx-1080-ti": _gpu("NVIDIA GeForce GTX 1080 Ti", 11.3, None, 484, 11),
    "rtx-2080-ti": _gpu("NVIDIA GeForce RTX 2080 Ti", 13.4, 53.8, 616, 11),
    "rtx-3060": _gpu("NVIDIA GeForce RTX 3060", 12.7, 25.5, 360, 12),
    "rtx-3070": _gpu("NVIDIA GeForce RTX 3070", 20.3, 40.6, 448, 8),
    "rtx-3090": _gpu("NVIDIA GeForce RTX 3090", 35.6, 71, 936, 24),
    "rtx-a6000": _gpu("NVIDIA RTX A6000", 38.7, 154.8, 768, 48),
    "rtx-4060": _gpu("NVIDIA GeForce RTX 4060", 15.1, 30.2, 272, 8),
    "rtx-4070": _gpu("NVIDIA GeForce RTX 4070", 29.1, 58.3, 504, 12),
    "rtx-4090": _gpu("NVIDIA GeForce RTX 4090", 82.6, 165.2, 1008, 24),
    "rtx-5090": _gpu("NVIDIA GeForce RTX 5090", 104.8, 209.5, 1792, 32),
    # Embedded.
    "jetson-nano": _gpu("NVIDIA Jetson Nano", 0.236, None, 25.6, 4, host=7),
    "jetson-tx2": _gpu("NVIDIA Jetson TX2", 0.666, None, 59.7, 8, host=5),
    "jetson-xavier-nx": _gpu("NVIDIA Jetson Xavier NX", 0.845, 6.8, 59.7, 8, host=2.5),
    "jetson-agx-xavier": _gpu("NVIDIA Jetson AGX Xavier", 1.41, 11.3, 136.5, 32, host=2.5),
    "jetson-orin-nano": _gpu("NVIDIA Jetson Orin Nano", 1.28, 10, 68, 8, host=2.5),
    "jetson-agx-orin": _gpu("NVIDIA Jetson AGX Orin", 5.3, 42.5, 204.8, 64, host=2),
}
"""GPUs by the name that a configuration gives them."""

DEFAULT_MIX: Mapping[str, float] = {
    "jetson-nano": 1,
    "jetson-xavier-nx": 2,
    "jetson-orin-nano": 2,
    "gtx-1080-ti": 2,
    "rtx-2080-ti": 2,
    "rtx-3060": 4,
    "rtx-3090": 2,
    "rtx-4060": 3,
    "rtx-4090": 2,
    "t4": 4,
    "v100": 2,
    "a10": 1,
    "a100-40gb": 2,
    "h100-sxm": 1,
}
"""Embedded boards, desktops, rented and data-centre GPUs side by side; the weights are ours."""
