"""Clients report the gradients of their tasks, compressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strategies.core.kinds import ClientPolicy


class CompressedJacobian(ClientPolicy):
    """Asks for a basis of r vectors and each task's coefficients (:mod:`clients.policies.compressed_jacobian`).

    Parameters
    ----------
    rank
        r.
    """

    name = "compressed-jacobian"

    def __init__(self, rank: int) -> None:
        self.reported = tuple(f"basis {j}" for j in range(rank))
        self._constants = {"rank": rank}

    @property
    def constants(self) -> Mapping[str, Any]:
        """The rank."""
        return self._constants
