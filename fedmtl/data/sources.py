"""The table of data sources.

A source is a function ``source(seed, clients, *, options...) -> Pool``. `clients` matters only to a source that
makes a data set of its own for each client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedmtl.data.digits import digits
from fedmtl.data.files import files
from fedmtl.data.hub import hub, hub_deferred
from fedmtl.data.pool import Pool
from fedmtl.data.synthetic import synthetic
from fedmtl.data.synthetic_tasks import synthetic_tasks
from fedmtl.data.two_digits import two_digits

SOURCES: dict[str, Callable[..., Pool]] = {
    "digits": digits,
    "two-digits": two_digits,
    "synthetic": synthetic,
    "synthetic-tasks": synthetic_tasks,
    "hub": hub,
    "files": files,
}

DEFERRED: Mapping[str, Callable[..., Pool | None]] = {"hub": hub_deferred}
"""Sources that can spread examples over clients before they read their features, with all options given."""
