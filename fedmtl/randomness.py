"""Random streams that depend on nothing but what they are for.

Every stream is derived from ``(seed, purpose, *numbers)``, for instance ``derive_seed(seed, "batches", client, job)``.
No stream depends on another, on a worker, on the order of completion or on a clock, so a run can be cut, resumed and
spread over any number of workers without changing one bit.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import torch

_MASK = (1 << 64) - 1


@functools.cache
def _purpose_key(seed: int, purpose: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64 bits that spreads every bit."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one stream.

    Parameters
    ----------
    seed
        The seed of the run.
    purpose
        What the stream is for, such as ``"batches"``.
    numbers
        What distinguishes this stream from the others of its purpose, such as client and job.
    """
    state = _purpose_key(seed, purpose)
    for number in numbers:
        state = _mix((state + 0x9E3779B97F4A7C15 * (number + 1)) & _MASK)
    return state >> 1


def torch_generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator for one stream."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *numbers))


def numpy_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A NumPy generator for one stream."""
    return np.random.default_rng(derive_seed(seed, purpose, *numbers))
