"""Models and updates of a few numbers: for trying a part of a strategy out by itself, without data or training.

What a server step starts from is put together of them by :meth:`strategies.core.kinds.Step.of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, Update


def toy_layout(shared: int, heads: Sequence[int] = (0,), buffers: int = 0) -> ParameterLayout:
    """The layout of a vector without named tensors.

    Parameters
    ----------
    shared
        Entries of the backbone.
    heads
        Entries of each task's head. One task whose head has none, unless said otherwise.
    buffers
        Entries that stand for batch-norm statistics.

    Examples
    --------
    >>> from fedmtl.toy import toy_layout
    >>> layout = toy_layout(4, heads=(2, 2), buffers=1)
    >>> layout.shared, layout.heads, layout.buffers
    (slice(0, 4, None), (slice(4, 6, None), slice(6, 8, None)), slice(8, 9, None))
    """
    slices = []
    start = shared
    for size in heads:
        slices.append(slice(start, start + size))
        start += size
    return ParameterLayout((), slice(0, shared), tuple(slices), slice(start, start + buffers))


def toy_model(
    values: Sequence[float] | Tensor, *, version: int = 0, heads: Sequence[int] = (0,), buffers: int = 0
) -> GlobalModel:
    """A version of a model that consists of these numbers, shape [P]: backbone, heads and buffers, in that order.

    Parameters
    ----------
    values
        The vector.
    version
        Its version.
    heads, buffers
        How many of the last values they are, as in :func:`toy_layout`; the others are the backbone.

    Raises
    ------
    ValueError
        If there are fewer values than heads and buffers take.

    Examples
    --------
    >>> from fedmtl.toy import toy_model
    >>> model = toy_model([0.5, -0.5, 2.0], heads=(1,))
    >>> model.vector[model.layout.shared], model.vector[model.layout.heads[0]]
    (tensor([ 0.5000, -0.5000]), tensor([2.]))
    """
    vector = torch.as_tensor(values, dtype=torch.float32)
    shared = len(vector) - sum(heads) - buffers
    if shared < 0:
        raise ValueError(f"{len(vector)} values: heads {tuple(heads)} and {buffers} buffers take more")
    return GlobalModel(version, vector, toy_layout(shared, heads, buffers))


def toy_update(
    client: int = 0, delta: Sequence[float] | Tensor = (0.0, 0.0), *, base_version: int = 0, **fields: Any
) -> Update:
    """What a client sends back: its first job, one step on ten examples, unless `fields` say otherwise.

    Parameters
    ----------
    client
        Who sends it.
    delta
        ``w_end - w_start``, shape [P]; a tensor is sent as it is.
    base_version
        The version that the client started from.
    **fields
        Further attributes of the :class:`fedmtl.protocol.Update`, such as `job`, `steps`, `examples` or `terms`.

    Examples
    --------
    Client 3's second job, which took it four seconds:

    >>> from fedmtl.toy import toy_update
    >>> update = toy_update(3, [0.5, -1.0], job=1, dispatched_at=2.0, arrived_at=6.0)
    >>> update.key, update.delta, update.duration
    (JobKey(client=3, job=1), tensor([ 0.5000, -1.0000]), 4.0)
    """
    values: dict[str, Any] = {"job": 0, "examples": 10, "steps": 1} | fields
    vector = delta if isinstance(delta, Tensor) else torch.tensor(delta, dtype=torch.float32)
    return Update(client=client, base_version=base_version, delta=vector, **values)
