"""What a server step says of convergence: how far model and clients moved, how alike clients are, and who took part.

The formulas, in words and with their sources, are in ``docs/convergence.md``. The work is linear in the updates: each
is read a few times where it lies, and what is held beside them are a few vectors of the model's size. All inner
products of updates would be a fifth of the work of a round of a hundred clients with LeNet. Statistics of batch norm
are values and no movement, and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmtl.client_types import TYPE_NUMBERS, type_name
from fedmtl.parameters import cut, weighted_sum
from fedmtl.protocol import Aggregation, GlobalModel, Update
from fedmtl.records.schemas import CONVERGENCE, LOSS_VARIANCES

_BLOCK = 1 << 16
"""Entries of a sum of products in float32, which is off by less than a millionth."""

_NOTHING = 1e-6
"""A mean update that is so small a part of the updates' length is 0 but for rounding."""

Statistics = Mapping[str, float | None]
"""The columns of :data:`fedmtl.records.schemas.CONVERGENCE` but the last, for one server step; None: no meaning."""


class ConvergenceWatch:
    """Measures the server steps of a run, one after the other. It holds one vector: the model of the step before.

    Parameters
    ----------
    fast
        The faster half of the clients; None where speeds are equal or unknown.

    Examples
    --------
    Two clients go (3, 4) and (-3, 4), and the model by the mean:

    >>> from fedmtl.protocol import Aggregation
    >>> from fedmtl.records.convergence import ConvergenceWatch
    >>> from fedmtl.toy import toy_model, toy_update
    >>> watch = ConvergenceWatch(fast=[1])
    >>> watch.begin(toy_model([0.0, 10.0]))
    >>> updates = toy_update(0, [3.0, 4.0]), toy_update(1, [-3.0, 4.0])
    >>> step = Aggregation(1, 2.5, "full", updates, (0.5, 0.5), (0, 0), frozenset())
    >>> found = watch.measure(step, toy_model([0.0, 14.0], version=1))
    >>> {name: round(value, 3) for name, value in found.items() if value is not None}
    {'step_norm': 4.0, 'update_norm': 5.0, 'update_spread': 3.0, 'dissimilarity': 1.25, 'step_cosine': 0.8,
     'pair_cosine': 0.28, 'drift': 0.5, 'share_fast': 0.5}
    """

    def __init__(self, fast: Collection[int] | None = None) -> None:
        self._fast = None if fast is None else frozenset(fast)
        self._before: GlobalModel | None = None

    def begin(self, model: GlobalModel) -> None:
        """The model from which the next step goes out, at a run's start and where it is resumed."""
        self._before = model

    def measure(self, aggregation: Aggregation, model: GlobalModel) -> Statistics:
        """The statistics of a step, and the model that it made."""
        if self._before is None:
            raise RuntimeError("call begin(model) before the first server step")
        before, self._before = self._before, model
        return step_statistics(before, model, aggregation.updates, aggregation.weights, self._fast)


def step_statistics(
    before: GlobalModel,
    after: GlobalModel,
    updates: Sequence[Update],
    weights: Sequence[float],
    fast: Collection[int] | None,
) -> Statistics:
    """The statistics of a server step from `before` to `after`.

    Parameters
    ----------
    before, after
        The models.
    updates, weights
        What went in, and the weight that each had.
    fast
        The faster half of the clients, if there is one.

    Returns
    -------
    Statistics
        None where a statistic has no meaning, or is not finite.
    """
    found = {**_geometry(before, after, updates), **_shares(updates, weights, fast)}
    return {name: None if value is None or not math.isfinite(value) else value for name, value in found.items()}


def _geometry(before: GlobalModel, after: GlobalModel, updates: Sequence[Update]) -> dict[str, float | None]:
    """Lengths and angles."""
    part = before.layout.trainable
    deltas, start = [cut(update.delta, part) for update in updates], cut(before.vector, part)
    step = cut(after.vector, part) - start
    lengths, step_norm, model_norm = [_norm(delta) for delta in deltas], _norm(step), _norm(start)
    found: dict[str, float | None] = dict.fromkeys(CONVERGENCE.names[:7]) | {"step_norm": step_norm}
    if not deltas:
        return found
    root_mean_square = math.sqrt(math.fsum(length**2 for length in lengths) / len(lengths))
    found["update_norm"] = math.fsum(lengths) / len(lengths)
    found["drift"] = root_mean_square / model_norm if model_norm else None
    if len({update.client for update in updates}) > 1:
        mean = weighted_sum(deltas, [1.0 / len(deltas)] * len(deltas))
        mean_norm = _norm(mean)
        found["update_spread"] = _spread(deltas, mean, root_mean_square, mean_norm)
        if mean_norm > _NOTHING * root_mean_square:
            found["dissimilarity"] = root_mean_square / mean_norm
    # What is of length 0 has no direction.
    moved = [(u.client, d, length) for u, d, length in zip(updates, deltas, lengths, strict=True) if length]
    if step_norm:
        cosines = [_dot(delta, step) / length / step_norm for _, delta, length in moved]
        found["step_cosine"] = _mean(math.fsum(cosines), len(cosines))
    found["pair_cosine"] = _pair_cosine(moved)
    return found


def _spread(deltas: Sequence[Tensor], mean: Tensor, root_mean_square: float, mean_norm: float) -> float:
    """The root mean square of the distance to the mean, ``sqrt(1/n sum_i ||Delta_i||^2 - ||mean||^2)``.

    Where little is left of that difference, float32 has rounded it away, and the distances are taken themselves.
    """
    square = root_mean_square**2 - mean_norm**2
    if square < 1e-3 * root_mean_square**2:
        square = math.fsum(_norm(delta - mean) ** 2 for delta in deltas) / len(deltas)
    return math.sqrt(square)


def _pair_cosine(moved: Sequence[tuple[int, Tensor, float]]) -> float | None:
    """The mean cosine over the pairs of updates of different clients, of their senders, vectors and lengths.

    With ``u_i = Delta_i / ||Delta_i||``, the sum over all pairs is ``||sum_i u_i||^2``, and over those of a client the
    same with the client's own: two passes over the updates where all pairs would be n.
    """
    by_client: dict[int, list[tuple[Tensor, float]]] = {}
    for client, delta, length in moved:
        by_client.setdefault(client, []).append((delta, 1.0 / length))
    if len(by_client) < 2:
        return None

    def square(units: Sequence[tuple[Tensor, float]]) -> float:
        if len(units) == 1:
            return 1.0
        vectors, inverse_lengths = zip(*units, strict=True)
        return _norm(weighted_sum(vectors, inverse_lengths)) ** 2

    own = math.fsum(square(units) for units in by_client.values())
    pairs = len(moved) ** 2 - sum(len(units) ** 2 for units in by_client.values())
    return _mean(square([unit for units in by_client.values() for unit in units]) - own, pairs)


def _dot(one: Tensor, other: Tensor) -> float:
    """An inner product: sums of float32 over a block, which are added in float64; not a number if one overflows."""
    if one.numel() <= _BLOCK:
        return torch.dot(one, other).item()
    blocks = zip(torch.split(one, _BLOCK), torch.split(other, _BLOCK), strict=True)
    sums = [torch.dot(x, y).item() for x, y in blocks]
    return math.fsum(sums) if all(map(math.isfinite, sums)) else math.nan


def _norm(vector: Tensor) -> float:
    return math.sqrt(_dot(vector, vector))


def _mean(total: float, count: int) -> float | None:
    """A mean of cosines, which rounding does not lead beyond 1."""
    return min(max(total / count, -1.0), 1.0) if count else None


def _shares(
    updates: Sequence[Update], weights: Sequence[float], fast: Collection[int] | None
) -> dict[str, float | None]:
    """What of the step's weights the fast half has, and each client type."""
    sizes = [abs(weight) for weight in weights]
    total = math.fsum(sizes)
    types = [type_name(update.terms.get("client_type")) for update in updates]
    found: dict[str, float | None] = dict.fromkeys(("share_fast", *(f"share_{name}" for name in TYPE_NUMBERS)))
    if not total:
        return found
    if fast is not None:
        found["share_fast"] = math.fsum(p for p, u in zip(sizes, updates, strict=True) if u.client in fast) / total
    if any(types):
        for name in TYPE_NUMBERS:
            found[f"share_{name}"] = math.fsum(p for p, said in zip(sizes, types, strict=True) if said == name) / total
    return found


def loss_variance(losses: NDArray[np.float64]) -> list[float | None] | None:
    """For each task the variance of its loss over the clients that have one.

    Parameters
    ----------
    losses
        Mean losses on the clients' held-out examples, not a number where a client has none, shape [clients, tasks].

    Returns
    -------
    list or None
        None in it where fewer than two clients have the loss, or one is not finite; None if that is so for all tasks.

    Examples
    --------
    >>> import numpy as np
    >>> from fedmtl.records.convergence import loss_variance
    >>> loss_variance(np.array([[1.0, 0.5], [3.0, np.nan]]))
    [1.0, None]
    """
    found: list[float | None] = []
    for column in losses.T:
        known = column[~np.isnan(column)]
        found.append(float(known.var()) if known.size > 1 and np.isfinite(known).all() else None)
    return found if any(entry is not None for entry in found) else None


def with_variances(part: pa.Table, variances: Mapping[int, Any]) -> pa.Table:
    """Rows of `aggregations` with the column `loss_variance`, null for versions that were not evaluated."""
    field = CONVERGENCE.field("loss_variance")
    values = [variances.get(version) for version in part["version"].to_pylist()]
    return part.append_column(field, pa.array(values, field.type))


def variances_in(finished: pa.Table) -> pa.Table:
    """The evaluated versions of a finished table `aggregations`, and their variances: what `with_variances` took."""
    evaluated = finished.filter(finished["loss_variance"].is_valid())
    return evaluated.select(LOSS_VARIANCES.names).cast(LOSS_VARIANCES)
