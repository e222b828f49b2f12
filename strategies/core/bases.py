"""The base vectors that are still needed, one for each version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Bases:
    """Counts, for each version, the orders in flight and received updates that started from it, and keeps its vector.

    Parameters
    ----------
    needed
        Whether vectors are kept at all; without, every operation does nothing.

    Attributes
    ----------
    vectors
        The vectors by version.
    """

    def __init__(self, needed: bool) -> None:
        self.needed = needed
        self.vectors: dict[int, Tensor] = {}
        self._holders: dict[int, int] = {}

    def hold(self, version: int, vector: Tensor) -> None:
        """One more order starts from this version."""
        if self.needed:
            self.vectors[version] = vector
            self._holders[version] = self._holders.get(version, 0) + 1

    def release(self, version: int) -> None:
        """One order or update that started from this version is settled."""
        if not self.needed:
            return
        self._holders[version] -= 1
        if self._holders[version] == 0:
            del self._holders[version], self.vectors[version]

    def state_dict(self) -> dict[str, Any]:
        """Versions, holders and vectors."""
        return {
            "versions": list(self.vectors),
            "holders": [self._holders[version] for version in self.vectors],
            "vectors": list(self.vectors.values()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.vectors = dict(zip(map(int, state["versions"]), state["vectors"], strict=True))
        self._holders = dict(zip(map(int, state["versions"]), map(int, state["holders"]), strict=True))
