"""The last thing a client does before an update goes up."""

from __future__ import annotations

from fedmtl.compression import compressor_of
from fedmtl.protocol import TrainOrder, Update


def send_compressed(order: TrainOrder, update: Update) -> int | None:
    """Compress the update in place if its order asks for that, after the client's own use of it.

    Returns
    -------
    int or None
        The length of the longest vector that could have come out; None if nothing was to be compressed.
    """
    if order.compression is None:
        return None
    compressor, layout = compressor_of(order.compression), order.base.layout
    # A new tensor: the client may have kept the old one.
    update.delta = compressor.compress(update.delta, layout, order.compression.seed)
    return compressor.most_entries(layout)
