"""Options that bring back faults of the code of FedQS's authors, for any strategy with a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.aggregators import NewestMeta, Overwritten, Statistics
from strategies.core.kinds import Aggregator
from strategies.schedulers import Buffered, Swept

Updates = Annotated[
    Literal["snapshot", "ref_overwrite"],
    Param("what is applied: the update that waited, or what its client has begun to train since (authors' code)"),
]
CarryMeta = Annotated[
    Literal["with_update", "global_arrays"],
    Param("feedback bit and similarity: the update's own, or those of its client's newest job (authors' code)"),
]
BatchNormBuffers = Annotated[
    Literal["as_parameters", "average", "keep_server"],
    Param(
        "batch-norm statistics: like parameters (authors' code), the mean of the clients', or never changed; nothing "
        "for a model without",
    ),
]

BUFFERS: Mapping[str, type[Buffered]] = {"sent": Buffered, "client": Swept}
"""The buffer of each tick order."""


def waiting_updates(aggregator: Aggregator, updates: Updates) -> Aggregator:
    """The aggregator, given what the option says."""
    return Overwritten(aggregator) if updates == "ref_overwrite" else aggregator


def carried_meta(aggregator: Aggregator, carry_meta: CarryMeta) -> Aggregator:
    """The aggregator, given what the option says."""
    return NewestMeta(aggregator) if carry_meta == "global_arrays" else aggregator


def buffers_apart(aggregator: Aggregator, rule: BatchNormBuffers) -> Aggregator:
    """The aggregator, with batch-norm statistics as the option says."""
    return aggregator if rule == "as_parameters" else Statistics(aggregator, rule)
