"""Options that bring back faults of the code of FedQS's authors, for any strategy with a buffer."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.schedulers import Buffered, Swept

BUFFERS: Mapping[str, type[Buffered]] = {"sent": Buffered, "client": Swept}
"""The buffer of each tick order."""
