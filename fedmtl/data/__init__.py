"""Data: sources of examples, and how they are spread over clients.

Sources are in :mod:`fedmtl.data.sources`; :func:`fedmtl.data.build.build_data` makes a run's data from its
configuration.
"""

from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.data.pool import Pool

__all__ = ["Examples", "FederatedData", "Pool", "Shards"]
