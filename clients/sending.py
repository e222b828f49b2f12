"""The last thing a client does before an update goes up."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.policies.base import ClientState
from fedmtl.compression import compressor_of
from fedmtl.protocol import TrainOrder, Update

_UNSENT = "unsent"


def send_compressed(order: TrainOrder, update: Update, state: ClientState) -> int | None:
    """Compress the update in place if its order asks for that, after the client's own use of it.

    Parameters
    ----------
    order, update
        The job.
    state
        The client's own; a compressor with a memory keeps there, of shape [P], what did not go up.

    Returns
    -------
    int or None
        The length of the longest vector that could have come out; None if nothing was to be compressed.
    """
    if order.compression is None:
        return None
    compressor, layout = compressor_of(order.compression), order.base.layout
    seed, whole = order.compression.seed, update.delta
    if compressor.memory and isinstance(unsent := state.get(_UNSENT), Tensor):
        whole = whole + unsent
    # A new tensor: the client may have kept the old one.
    update.delta = compressor.compress(whole, layout, seed)
    # What the server must turn down must not be remembered, either.
    if compressor.memory and update.failure is None and bool(torch.isfinite(whole).all()):
        state[_UNSENT] = (whole - compressor.restore(update.delta, layout, seed)).mul_(compressor.memory)
    return compressor.most_entries(layout)
