"""Random streams that depend on nothing but what they are for.

Every stream is derived from ``(seed, purpose, *numbers)``, for instance ``derive_seed(seed, "batches", client, job)``.
No stream depends on another, on a worker, on the order of completion or on a clock, so a run can be cut, resumed and
spread over any number of workers without changing one bit.

Whatever draws from the default generators of torch, NumPy and Python (dropout, say, or a user's own model) does so
inside :func:`default_generators`, which lets them begin anew for each purpose and gives them back as they were.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random import mtrand
from torch import Tensor

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
        The seed of the run, or one that holds its data, its devices or its first model fixed.
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


_spare: list[np.random.MT19937] = []
"""Generators for NumPy's default one to be exchanged with; to make one takes ten times as long as to seed it."""

_aside: list[object] = []
"""Those that blocks will give back. Blocks of two threads may end in any order; one may then have to give back what the
other has exchanged its own for, which must not be at anybody's service by then."""


@contextmanager
def default_generators(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Meanwhile the default generators of torch, NumPy and Python draw from streams of this seed.

    Afterwards, also after an error, they go on where they were.

    Parameters
    ----------
    seed
        From :func:`derive_seed`. NumPy's generator takes its lower 32 bits.
    device
        Where else than on the CPU torch may draw: a CUDA or an MPS device.

    Notes
    -----
    To copy NumPy's state would take four times as long as all the rest, so its generator is exchanged for another one.
    Of its own the one thing that gets lost is the second of a pair of normal variates, where the caller has drawn only
    the first; `undisturbed_generators` keeps that, too.

    Examples
    --------
    >>> import torch
    >>> from fedmtl.randomness import default_generators
    >>> before = torch.get_rng_state()
    >>> with default_generators(7):
    ...     first = torch.rand(2)
    >>> with default_generators(7):
    ...     bool((torch.rand(2) == first).all())
    True
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    of_device = None if device is None else _device_state(device)
    with _exchanged():
        try:
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 - it is the one that others draw from
            random.seed(seed)
            if device is not None and of_device is not None:
                _seed_device(device, seed)
            yield
        finally:
            if device is not None and of_device is not None:
                _restore_device(device, of_device)


@contextmanager
def _given_back() -> Iterator[None]:
    """Torch's generator (CPU) and Python's then go on as before, and NumPy has the generator that it had."""
    of_torch, of_python, of_numpy = torch.default_generator.get_state(), random.getstate(), mtrand.get_bit_generator()
    try:
        yield
    finally:
        torch.default_generator.set_state(of_torch)
        random.setstate(of_python)
        mtrand.set_bit_generator(of_numpy)


@contextmanager
def _exchanged() -> Iterator[None]:
    """Whatever becomes of the generators meanwhile, they then go on as before."""
    before, meanwhile = mtrand.get_bit_generator(), _spare.pop() if _spare else np.random.MT19937()
    _aside.append(before)
    try:
        with _given_back():
            mtrand.set_bit_generator(meanwhile)
            yield
    finally:
        _aside.remove(before)
        if meanwhile is not mtrand.get_bit_generator() and meanwhile not in _aside:
            _spare.append(meanwhile)


@contextmanager
def undisturbed_generators() -> Iterator[None]:
    """Whatever is drawn meanwhile, the default generators of torch (CPU), NumPy and Python then go on as before.

    Exact, and ten times as slow as a block of `default_generators`: for a whole run, in which nothing may rely on them
    but what has such a block of its own.
    """
    of_numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    try:
        with _given_back():
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002


def _device_state(device: torch.device) -> Tensor | None:
    """The state of a device's default generator; None if it has none beside the CPU's."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def _seed_device(device: torch.device, seed: int) -> None:
    if device.type == "cuda":
        torch.cuda.default_generators[_index(device)].manual_seed(seed)
    else:
        torch.mps.manual_seed(seed)


def _restore_device(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.mps.set_rng_state(state)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
