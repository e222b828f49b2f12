"""The compressors by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from fedmtl.components import create
from fedmtl.compression.base import Compressor
from fedmtl.compression.shared_randomness import SharedRandomness
from fedmtl.compression.top_entries import TopEntries
from fedmtl.protocol import Compression


def none() -> None:
    """Updates go up as they are."""
    return None


COMPRESSORS: dict[str, Callable[..., Compressor | None]] = {
    "none": none,
    SharedRandomness.name: SharedRandomness,
    TopEntries.name: TopEntries,
}


def build_compressor(name: str, options: Mapping[str, Any]) -> Compressor | None:
    """The compressor of that name; None for none.

    Raises
    ------
    ConfigError
        If the name or an option is unknown.
    """
    return create(COMPRESSORS, name, options, "compression")


def compressor_of(compression: Compression) -> Compressor:
    """The compressor that an order names; in one process it is the same for all orders that name the same."""
    return _compressor(compression.name, json.dumps(dict(compression.options), sort_keys=True))


def forget_compressors() -> None:
    """Give up what `compressor_of` keeps, random vectors among it, when a run is over: the next one draws others."""
    _compressor.cache_clear()


@lru_cache(maxsize=4)
def _compressor(name: str, options: str) -> Compressor:
    found = build_compressor(name, json.loads(options))
    assert found is not None
    return found
