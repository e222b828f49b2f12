"""The table of data sources.

A source is a function ``source(seed, clients, *, options...) -> Pool``. `clients` matters only to a source that
makes a data set of its own for each client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedmtl.data.digits import digits
from fedmtl.data.pool import Pool

SOURCES: Mapping[str, Callable[..., Pool]] = {
    "digits": digits,
}
