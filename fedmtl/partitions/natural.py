"""The split that the data were collected with: by user, writer or device."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.errors import ConfigError, DataError
from fedmtl.partitions.cutting import UNUSED, parts_of
from fedmtl.randomness import numpy_generator


def natural(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    ids_per_client: Annotated[
        int, Param("users that a client stands for, drawn at random; 0 spreads all of them over the clients", ge=0)
    ] = 1,
) -> list[np.ndarray]:
    """Every client is one user, writer or device of the data set, or several of them.

    Where there are more of them than clients need, those not drawn are not used. Where each is used, client k is the
    k-th.

    Raises
    ------
    ConfigError
        If the source does not know whose each example is.
    DataError
        If there are too few users for so many clients.
    """
    if pool.natural is None:
        raise ConfigError(
            "data.partition = 'natural': this source does not know whose each example is; use another partition"
        )
    names, user = np.unique(pool.natural, return_inverse=True)
    needed = clients * max(ids_per_client, 1)
    if len(names) < needed:
        raise DataError(
            f"data.clients = {clients}: the data come from {len(names)} users, {needed} are needed; use fewer clients"
        )
    if ids_per_client:
        chosen = np.sort(numpy_generator(seed, "natural").permutation(len(names))[:needed])
    else:
        chosen = np.arange(len(names))
    client_of = np.full(len(names), UNUSED)
    client_of[chosen] = np.arange(len(chosen)) % clients
    return parts_of(client_of[user], clients)
